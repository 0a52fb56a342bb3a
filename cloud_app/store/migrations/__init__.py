"""Migrates a database's tables to a revision; the revisions are in versions/."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from ddnn.errors import ConfigError

HEAD = "0002"
BASE = "base"  # no tables
RELEASED = "0001"  # the tables of the release that had no revisions


def read_revision(link: Connection) -> str | None:
    """Read the database's revision; None: it has none."""
    return MigrationContext.configure(link).get_current_revision()


def run_migrations(link: Connection, to: str, name: str) -> None:
    """Migrate the database to a revision, in the transaction of `link`."""
    config = Config()
    config.set_main_option("script_location", "cloud_app.store:migrations")
    config.attributes["connection"] = link
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    revisions = [*(script.revision for script in scripts), BASE]  # the newest first
    at = read_revision(link)
    if at is not None and at not in revisions:
        raise ConfigError(
            f"database {name} has tables of revision {at}; this program knows revisions up to "
            f"{revisions[0]}: a newer ddnn made it; install that version, or name another database"
        )
    if at is None and inspect(link).has_table("answers"):
        at = RELEASED
        command.stamp(config, at)
    down = revisions.index(to) > revisions.index(at or BASE)
    (command.downgrade if down else command.upgrade)(config, to)
