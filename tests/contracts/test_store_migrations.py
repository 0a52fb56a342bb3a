"""A database of an older program is taken over whole; one of a newer program is refused."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from cloud_app.store import Store
from cloud_app.store.migrations import HEAD, RELEASED
from cloud_app.store.schema import METADATA
from ddnn.errors import ConfigError, LinkError
from tests.answer_builder import make_answer as make
from tests.contracts.store_recount import flatten

_RELEASED_SQL = Path(__file__).with_name("released.sql").read_text()


def make_released_database(url: str) -> None:
    """Make a database as the released store wrote it: with answers, totals and events."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as link:
            link.executescript(_RELEASED_SQL)
        link.close()
        return
    store = Store(url)
    store.database.migrate(RELEASED)
    with sqlite3.connect(":memory:") as source:
        source.executescript(_RELEASED_SQL)
        source.row_factory = sqlite3.Row
        with store.database.write() as link:
            link.execute(text("DROP TABLE alembic_version"))
            for name in ("answers", "totals", "events"):
                for row in map(dict, source.execute(f"SELECT * FROM {name}")):  # noqa: S608
                    if name == "answers":
                        row["late"] = bool(row["late"])
                    names = ", ".join(row)
                    values = ", ".join(f":{column}" for column in row)
                    query = f"INSERT INTO {name} ({names}) VALUES ({values})"  # noqa: S608
                    link.execute(text(query), row)
            for name in ("answers", "events"):
                greatest = f"(SELECT max(id) FROM {name})"  # noqa: S608
                sequence = f"pg_get_serial_sequence('{name}', 'id')"
                link.execute(text(f"SELECT setval({sequence}, {greatest})"))
    source.close()
    store.close()


def content(url: str, *tables: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of tables, as the database has them."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as link:
        found = {}
        for table in tables:
            query = text(f"SELECT * FROM {table}")  # noqa: S608
            found[table] = sorted((dict(row) for row in link.execute(query).mappings()), key=str)
    engine.dispose()
    return found


def revisions(url: str) -> list[str]:
    return [row["version_num"] for row in content(url, "alembic_version")["alembic_version"]]


def test_the_tables_are_those_of_the_schema(store: Store) -> None:
    with store.database.read() as link:
        context = MigrationContext.configure(link, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_a_released_database_is_taken_over_whole(url: str, tmp_path: Path) -> None:
    make_released_database(url)
    before = content(url, "answers", "totals", "events")
    store = Store(url)
    assert revisions(url) == [HEAD]
    after = content(url, "answers", "totals", "events")
    for table, old_rows in before.items():
        assert len(after[table]) == len(old_rows) > 0
        assert [{name: row[name] for name in old_rows[0]} for row in after[table]] == old_rows
    # What is counted again is what a store that had seen these answers would have counted.
    fresh = Store(f"sqlite:///{tmp_path}/fresh.db")
    fresh.save([(record.site, record.answer) for record in reversed(store.list_newest(999))])
    assert store.list_newest(999) == fresh.list_newest(999)
    assert flatten(store.summarize()) == flatten(fresh.summarize())
    assert store.count_samples() == fresh.count_samples()
    assert store.read_histograms() == fresh.read_histograms()
    first_s, last_s = 1_700_000_000, 1_700_002_000
    for step_s in (60, 3600):
        for shift_s in (0, -3_400_000_000):  # some were answered by a clock before 1970
            times = first_s + shift_s, last_s + shift_s
            series = store.read_series(*times, step_s)
            assert series == fresh.read_series(*times, step_s)
            assert any(bucket.exits for bucket in series)
    fresh.close()
    # And it goes on.
    store.save([("home", make(1000))])
    store.set_label("home", 1, 1, "ada", 1.0)
    assert store.list_newest(1)[0].answer.sample == 1000
    assert store.prune(0.0, 0.0) == 0
    store.close()


def test_down_and_up_again_keeps_the_answers(url: str) -> None:
    store = Store(url)
    store.save([("home", make(i, label=i % 3, truth=[None, 1, 2][i // 4])) for i in range(12)])
    store.save([("shop", make(i, exit="edge")) for i in range(3)])
    store.add_event(1.0, "home", "cam1", "joined", key="1")
    summary, series = store.summarize(), store.read_series(0, 60, 60)
    counters = store.read_histograms()
    for sample, label in ((0, 0), (1, 0), (5, 2), (9, -1)):
        store.set_label("home", sample, label, "ada", 1.0)
    assert store.summarize().accuracy != summary.accuracy
    store.database.migrate(RELEASED)
    assert revisions(url) == [RELEASED]
    down = content(url, "answers", "totals", "events")
    assert not {"votes", "labelled", "stored_at_s"} & down["answers"][0].keys()
    by_source = defaultdict(lambda: [0, 0])
    for row in down["answers"]:
        assert row["correct"] == (None if row["truth"] is None else row["truth"] == row["label"])
        by_source[row["site"], row["exit"], row["quality"]][0] += row["correct"] is not None
        by_source[row["site"], row["exit"], row["quality"]][1] += row["correct"] or 0
    assert by_source == {
        (row["site"], row["exit"], row["quality"]): [row["known"], row["correct"]]
        for row in down["totals"]
    }
    store.database.migrate()
    assert (store.summarize(), store.read_series(0, 60, 60)) == (summary, series)
    assert store.read_histograms() == counters
    assert [event.what for event in store.list_events(9)] == ["joined"]
    store.close()


def test_down_to_nothing_and_up(url: str) -> None:
    store = Store(url)
    store.database.migrate("base")
    store.database.migrate("base")
    store.database.migrate()
    store.save([("home", make())])
    assert store.summarize().answered == 1
    store.close()


def test_a_database_of_a_newer_program_is_refused(url: str) -> None:
    store = Store(url)
    with store.database.write() as link:
        link.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(ConfigError, match=r"9999.*newer ddnn.*another database"):
        Store(url)
    assert revisions(url) == ["9999"]


def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    make_released_database(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as link:
        link.execute(text("CREATE TABLE settings (occupied INTEGER)"))  # made last
    before = content(url, "answers", "totals", "events")
    with pytest.raises(LinkError, match="settings"):
        Store(url)
    assert content(url, "answers", "totals", "events") == before
    with engine.begin() as link:
        link.execute(text("DROP TABLE settings"))
    engine.dispose()
    Store(url).close()
    assert revisions(url) == [HEAD]
