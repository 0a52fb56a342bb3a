"""`ddnn status`: the nodes of a site and its exits, in the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ddnn.adapters.command import exit_codes
from ddnn.cli.observer import list_site_options, make_printable, read_observer_settings
from ddnn.cli.site_observer import SiteObserver, observe_site
from ddnn.errors import ConfigError
from ddnn.protocol.topics import EVERYWHERE

REDRAW_S = 1.0
HIDDEN_COUNTS = ("messages_", "bytes_", "answers", "frames")  # beginnings of names
COLUMNS = ("node", "role", "presence", "version", "bundle", "heard", "up", "memory", "counts")
COLOURS = {"online": "green", "stopped": "yellow", "silent": "yellow", "lost": "red"}
EPILOG = """\b
Examples:
  ddnn status --broker-host edge.lan
  ddnn status --watch
  ddnn status --json | jq '.nodes[] | select(.presence != "online")'

\b
Heard: the time since the node's last message. Nodes send statistics every 5 seconds.
"""


@click.command(epilog=EPILOG, params=list_site_options())
@click.option("--watch", is_flag=True, help="Continue until Ctrl-C.")
@click.option(
    "--for-s",
    default=6.0,
    show_default=True,
    help="Listen so long; less once every online node has sent statistics.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(watch: bool, for_s: float, as_json: bool, **keys: Any) -> None:
    """Show which nodes of a site are online, and which exits answer."""
    with exit_codes():
        if watch and as_json:
            raise ConfigError("--watch shows a table; use --json without it")
        if not 0 < for_s < 3600:
            raise ConfigError(f"--for-s {for_s}: expected above 0, under an hour")
        file = keys.pop("config")
        with observe_site(read_observer_settings(keys, file)) as observer:
            if watch:
                _watch(observer)
                return
            observer.listen(for_s)
            click.echo(json.dumps(observer.make_report()) if as_json else _format_text(observer))


# ------------------------------------------------------------------------- format


def _format_text(observer: SiteObserver) -> str:
    rows = _format_rows(observer)
    lines = [observer.summarize()]
    if rows:
        table = [COLUMNS, *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
    return "\n".join([*lines, *_format_exits(observer)])


def _format_rows(observer: SiteObserver) -> list[tuple[str, ...]]:
    """One row of COLUMNS for each node."""
    is_everywhere = observer.settings.site == EVERYWHERE
    return [
        (
            f"{row['site']}/{row['node']}" if is_everywhere else row["node"],
            row["role"],
            row["presence"],
            make_printable(row["version"]) or "-",
            make_printable(row["bundle"]) or "-",
            "-" if row["heard_age_s"] is None else f"{row['heard_age_s']:.1f} s",
            "-" if row["uptime_s"] is None else _format_duration(row["uptime_s"]),
            "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:.0f} MiB",
            " ".join(
                f"{make_printable(name)} {count}"
                for name, count in sorted(row["counts"].items())
                if count and not name.startswith(HIDDEN_COUNTS)
            ),
        )
        for row in observer.make_report()["nodes"]
    ]


def _format_duration(seconds: float) -> str:
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _format_exits(observer: SiteObserver) -> list[str]:
    report = observer.make_report()
    thinned = [
        f"{row['node']}: cameras take {100 * row['share_taken']:.0f} % of the ticks, "
        f"{row['samples_shed']} samples were shed"
        for row in report["thinned"]
    ]
    if not report["exits"]:
        return [f"no answer in {report['listened_s']:.0f} s", *thinned]
    return (
        thinned
        + [
            f"{tier:6} {100 * counts['share']:5.1f} %  {counts['answers']:5} answers  "
            f"p50 {1e3 * counts['latency_p50_s']:.1f} ms  {counts['degraded']} degraded"
            for tier, counts in report["exits"].items()
        ]
        + [f"last answer {report['last_answer_age_s']:.1f} s ago"]
    )


# -------------------------------------------------------------------------- watch


def _watch(observer: SiteObserver) -> None:
    with _open_screen() as show:
        try:
            while True:
                show(observer)
                redraw_at_s = time.monotonic() + REDRAW_S
                while (left_s := redraw_at_s - time.monotonic()) > 0:
                    observer.wait(left_s)
        except KeyboardInterrupt:
            return


@contextmanager
def _open_screen() -> Iterator[Callable[[SiteObserver], None]]:
    """Yield a function that shows the site: in place where rich is installed and standard output
    is a terminal, else one text after the other."""
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        yield _print_text
        return
    console = Console()
    if not console.is_terminal:
        yield _print_text
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda observer: live.update(_build_table(observer), refresh=True)


def _print_text(observer: SiteObserver) -> None:
    click.echo(_format_text(observer) + "\n")


def _build_table(observer: SiteObserver) -> Any:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(*COLUMNS)
    for row in _format_rows(observer):
        cells = [escape(cell) for cell in row]
        cells[2] = f"[{COLOURS.get(row[2], 'dim')}]{cells[2]}[/]"
        table.add_row(*cells)
    lines = [escape(line) for line in _format_exits(observer)]
    return Group(escape(observer.summarize()), table, *lines, "Ctrl-C ends")
