"""The commands of `ddnn site`."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from ddnn.adapters.command import exit_codes
from ddnn.adapters.joined import read_file, require_cryptography
from ddnn.core.ids import require_id
from ddnn.errors import ConfigError
from ddnn.protocol.access import ROLES, Role
from ddnn.protocol.home_assistant import require_prefix
from ddnn.runtime.guard import DAY_S, EXPIRES_SOON_DAYS
from ddnn.runtime.settings import read_secret
from ddnn.runtime.site_identity import SUFFIX, parse_broker

if TYPE_CHECKING:
    from ddnn.cli.site.directory import SiteDirectory

NODE_DAYS, BROKER_DAYS = 730, 825
MAX_DAYS = 3650
RELOAD = (
    "give {broker} to the broker, and let it reload: systemctl reload mosquitto, or "
    "docker compose kill -s HUP mosquitto-edge"
)
EPILOG = """\b
Examples:
  ddnn site init site --broker gateway.lan        certificates, rights, Mosquitto's configuration
  ddnn site add-node cam1 --role device           writes cam1.site: carry it to the Pi
  ddnn site add-node edge --role edge
  ddnn site add-node cloud --role cloud --role dashboard
  ddnn site list
  ddnn site revoke cam1

\b
A node then needs its file only:
  python -m device_app --site-file cam1.site --source picamera://0
"""


@click.group(epilog=EPILOG)
def site() -> None:
    """Make and revoke the certificates, rights and keys of a site's nodes."""


def _dir_option(command: Any) -> Any:
    return click.option(
        "--dir",
        "directory",
        default="site",
        envvar="DDNN_SITE_DIR",
        show_default=True,
        type=click.Path(path_type=Path),
        help="The site's directory.",
    )(command)


def _pid_option(command: Any) -> Any:
    return click.option(
        "--reload",
        "pid_file",
        type=click.Path(path_type=Path),
        help="Let the broker reload whose process id is in this file: pid_file of its "
        "configuration. It must read the files where they are written.",
    )(command)


@site.command()
@click.argument("directory", type=click.Path(path_type=Path), default=Path("site"))
@click.option(
    "--site",
    "name",
    default="home",
    show_default=True,
    help="Id of the site; all: the cloud's own, whose broker serves the sites' bridges.",
)
@click.option(
    "--broker",
    "brokers",
    multiple=True,
    help="HOST[:PORT] at which nodes reach the broker; several names of it: tried in turn. "
    "[this machine's name, port 8883]",
)
@click.option(
    "--installed-at",
    default="",
    help="Where DIRECTORY/broker will lie on the broker's machine [DIRECTORY/broker].",
)
@click.option(
    "--home-assistant",
    default="homeassistant",
    show_default=True,
    help="Discovery prefix of Home Assistant; empty: edges may not announce the site to it.",
)
@click.option(
    "--days", default=BROKER_DAYS, show_default=True, help="Validity of the broker's certificate."
)
def init(
    directory: Path,
    name: str,
    brokers: tuple[str, ...],
    installed_at: str,
    home_assistant: str,
    days: int,
) -> None:
    """Make DIRECTORY: the site's CA, its signing key, and the broker's files."""
    with exit_codes():
        require_cryptography()
        from ddnn.cli.site.directory import create_site

        require_id(name, "site")
        if home_assistant:
            require_prefix(home_assistant)
        listed = [parse_broker(text) for text in brokers or (socket.gethostname(),)]
        if len({broker.port for broker in listed}) > 1:
            raise ConfigError("--broker with several ports; expected several names of one broker")
        made = create_site(
            directory.absolute(),
            name,
            listed,
            installed_at=installed_at or str(directory.absolute() / "broker"),
            home_assistant=home_assistant,
            until=_find_end(days),
        )
        click.echo(f"site {name} in {directory}: keep {directory}/private secret, and back it up")
        click.echo(f"nodes will reach the broker at {', '.join(map(str, listed))}")
        click.echo(f"broker: mosquitto -c {made.broker}/mosquitto.conf")
        click.echo("next: ddnn site add-node cam1 --role device")


@site.command("add-node")
@click.argument("node")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(list(ROLES)),
    help="What the node may do; several are possible. "
    + "; ".join(f"{role}: {text}" for role, text in ROLES.items())
    + ".",
)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write [NODE.site].")
@click.option("--days", default=NODE_DAYS, show_default=True, help="Validity of its certificate.")
@click.option(
    "--passphrase-file",
    type=click.Path(),
    help="File whose first line encrypts the keys in the site file.",
)
@click.option("--renew", is_flag=True, help="A new file for a node that is there already.")
@_pid_option
@_dir_option
def add_node(
    node: str,
    roles: tuple[str, ...],
    out: Path | None,
    days: int,
    passphrase_file: str | None,
    renew: bool,
    pid_file: Path | None,
    directory: Path,
) -> None:
    """Let NODE join the site: write its site file, and its rights into the broker's files."""
    with exit_codes():
        require_id(node, "node")
        out = out or Path(f"{node}{SUFFIX}")
        if out.exists() and not renew:
            raise ConfigError(f"{out} exists; remove it, or choose another by --out")
        passphrase = read_secret(passphrase_file) if passphrase_file else None
        with _open(directory) as opened:
            added = opened.add(
                node,
                cast("tuple[Role, ...]", roles),
                out,
                until=_find_end(days),
                passphrase=passphrase,
                is_renewed=renew,
            )
            click.echo(
                f"{out}: {node} ({', '.join(added.roles)}), valid until "
                f"{_format_date(added.expires_s)}; it holds a key: keep it secret"
            )
            _reload(opened, pid_file)


@site.command()
@click.argument("node")
@_pid_option
@_dir_option
def revoke(node: str, pid_file: Path | None, directory: Path) -> None:
    """Take NODE's rights away: its certificates are revoked."""
    with exit_codes(), _open(directory) as opened:
        revoked = opened.revoke(node)
        click.echo(f"{node}: {len(revoked.serials)} certificates revoked, all rights taken away")
        _reload(opened, pid_file)


@site.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_dir_option
def list_nodes(as_json: bool, directory: Path) -> None:
    """List the nodes and when their certificates expire."""
    with exit_codes(), _open(directory) as opened:
        report = make_report(opened)
        click.echo(json.dumps(report) if as_json else _format_report(report))


@site.command("renew-broker")
@click.option("--days", default=BROKER_DAYS, show_default=True, help="Validity of its certificate.")
@_pid_option
@_dir_option
def renew_broker(days: int, pid_file: Path | None, directory: Path) -> None:
    """Issue a new certificate for the broker; nodes keep their files."""
    with exit_codes(), _open(directory) as opened:
        opened.renew_broker(_find_end(days))
        click.echo(
            f"the broker's certificate: until {_format_date(opened.record.broker_expires_s)}"
        )
        _reload(opened, pid_file)


@site.command()
@click.argument("file", type=click.Path(path_type=Path))
@_dir_option
def bridge(file: Path, directory: Path) -> None:
    """Connect the site's broker to the cloud's, with FILE.

    The cloud's operator makes FILE in the cloud's own directory: ddnn site add-node SITE --role
    bridge. Commands of the cloud's dashboards are then obeyed; edges that were added before need
    a new file for that: ddnn site add-node edge --renew
    """
    with exit_codes(), _open(directory) as opened:
        joined = opened.join_cloud(read_file(str(file), ""))
        click.echo(f"bridge to {joined.broker}, valid until {_format_date(joined.expires_s)}")
        click.echo(f"give {opened.broker} to the broker, and start it again")


@contextmanager
def _open(directory: Path) -> Iterator[SiteDirectory]:
    """Open a site's directory; ConfigError where there is none, or cryptography is missing."""
    require_cryptography()
    from ddnn.cli.site.directory import open_site

    with open_site(directory) as opened:
        yield opened


def make_report(opened: SiteDirectory) -> dict[str, Any]:
    """What `ddnn site list --json` prints."""
    record, now_s = opened.record, time.time()

    def measure_days(expires_s: int) -> float:
        return round((expires_s - now_s) / DAY_S, 1)

    rows = [
        {
            "node": node.node,
            "roles": list(node.roles),
            "expires": _format_date(node.expires_s),
            "days": measure_days(node.expires_s),
            "state": "revoked" if node.revoked else _judge(measure_days(node.expires_s)),
        }
        for node in record.nodes
    ]
    others = [("broker", record.broker_expires_s), ("CA", opened.load_authority().expires_s)]
    if record.bridge is not None:
        others.append(("bridge", record.bridge.expires_s))
    return {
        "site": record.site,
        "brokers": [str(broker) for broker in record.brokers],
        "certificates": {
            name: {
                "expires": _format_date(expires_s),
                "days": measure_days(expires_s),
                "state": _judge(measure_days(expires_s)),
            }
            for name, expires_s in others
        },
        "nodes": rows,
    }


def _format_report(report: dict[str, Any]) -> str:
    rows = [("node", "roles", "expires", "days", "state")]
    rows += [
        (row["node"], ", ".join(row["roles"]), row["expires"], f"{row['days']:.0f}", row["state"])
        for row in report["nodes"]
    ]
    rows += [
        (f"({name})", "", found["expires"], f"{found['days']:.0f}", found["state"])
        for name, found in report["certificates"].items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"site {report['site']}, broker {', '.join(report['brokers'])}"]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _judge(days: float) -> str:
    return "expired" if days < 0 else "renew" if days < EXPIRES_SOON_DAYS else "valid"


def _find_end(days: int) -> datetime.datetime:
    if not 0 < days <= MAX_DAYS:
        raise ConfigError(f"--days {days}: expected 1 to {MAX_DAYS}")
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


def _format_date(time_s: int) -> str:
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%d")


def _reload(opened: SiteDirectory, pid_file: Path | None) -> None:
    """Let the broker read its files again, or print how."""
    if pid_file is None:
        click.echo(RELOAD.format(broker=opened.broker))
        return
    try:
        os.kill(int(pid_file.read_text().strip()), signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--reload {pid_file}: {error}; the files are written: let the broker reload them"
        ) from None
    click.echo("the broker reloads")
