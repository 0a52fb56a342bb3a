"""`ddnn status`: the nodes of a site and its exits, in the terminal."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click
import numpy as np

from ddnn.adapters.command import exit_codes, schema_options
from ddnn.cli.any_node import AnyNode, read_any_node, shown, visitor
from ddnn.errors import ConfigError, LinkError, RemoteProtocolError
from ddnn.exits.hierarchy import EXITS
from ddnn.machines.membership import Membership
from ddnn.protocol import topics
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer, Stats, Status, WorkerOffer
from ddnn.protocol.topics import EVERYWHERE, Kind, presence_filters, topic_filter
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

CONNECT_S = 6.0
TRIES = 2  # MQTT 5, then 3.1.1
SETTLE_S = 2.0  # results are listened to for at least so long
SILENT_S = 20.0  # three rounds of statistics missed, and then some
REDRAW_S = 1.0
KEEP_ANSWERS = 1000
MOST_NODES = 1000
KEYS = ("site", "broker_host", "broker_port", "broker_user", "broker_password_file", "mqtt")
NOT_NOTEWORTHY = ("messages_", "bytes_", "answers", "frames")
COLUMNS = ("node", "role", "presence", "version", "bundle", "heard", "up", "memory", "counts")
EPILOG = """\b
Examples:
  ddnn status --broker-host edge.lan
  ddnn status --watch
  ddnn status --json | jq '.nodes[] | select(.presence != "online")'

\b
Heard: how long ago the node last said anything. Nodes send statistics every 5 seconds.
"""


@click.command(
    epilog=EPILOG,
    params=[option for option in schema_options(AnyNode) if option.name in (*KEYS, "config")],
)
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--for-s",
    default=6.0,
    show_default=True,
    help="Listen so long; less once all that are online were heard.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(watch: bool, for_s: float, as_json: bool, **keys: Any) -> None:
    """Who is there at a site, and which exits answer."""
    with exit_codes():
        if watch and as_json:
            raise ConfigError("--watch shows a table; use --json without it")
        if not 0 < for_s < 3600:
            raise ConfigError(f"--for-s {for_s}: expected above 0, under an hour")
        file = keys.pop("config")
        with listening(read_any_node(keys, file)) as watched:
            if watch:
                _watch(watched)
                return
            watched.listen(for_s)
            click.echo(json.dumps(watched.report()) if as_json else _text(watched))


@dataclass
class Seen:
    """What is known of a node. Its presence follows the rule of the machines: a Last Will of an
    older session than the present one kills nobody."""

    status: Status
    membership: Membership
    heard_s: float | None = None  # monotonic; None: only its retained status is known
    stats: Stats | None = None


@dataclass
class Watched:
    """A site as it is heard by one who only listens."""

    settings: AnyNode
    nodes: dict[tuple[str, str], Seen] = field(default_factory=dict)  # (site, node)
    lends: dict[tuple[str, str], WorkerOffer] = field(default_factory=dict)
    answers: deque[tuple[float, Answer]] = field(
        default_factory=lambda: deque[tuple[float, Answer]](maxlen=KEEP_ANSWERS)
    )
    silent_s: float = SILENT_S
    connected: bool = False
    reason: str = ""
    changed_s: float = 0.0
    tries: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._transport = visitor(self.settings, self._event)

    # ------------------------------------------------------------------ listening

    def connect(self) -> None:
        """LinkError where the broker cannot be reached."""
        until_s = time.monotonic() + CONNECT_S
        while not self.connected and self.tries < TRIES and time.monotonic() < until_s:
            self._transport.wait(0.2)
        if not self.connected:
            raise LinkError(
                f"{self.reason or f'{self.settings.broker} does not answer'}; "
                "`ddnn doctor` with the same options says what to mend"
            )

    def listen(self, for_s: float) -> None:
        until_s = self.started_s + for_s
        enough_s = min(until_s, self.started_s + SETTLE_S)
        while (now_s := time.monotonic()) < until_s:
            waiting = any(self._online(n) and n.stats is None for n in self.nodes.values())
            if now_s >= enough_s and not waiting:
                return
            self._transport.wait(min(0.2, until_s - now_s))

    def wait(self, timeout_s: float) -> None:
        self._transport.wait(timeout_s)

    def close(self) -> None:
        self._transport.close()

    def _event(self, event: LinkEvent) -> None:
        match event:
            case LinkUp():
                site = self.settings.site
                heard = "+" if site == EVERYWHERE else site
                stats = [topic_filter(Kind.STATS, s) for s in {heard, EVERYWHERE}]
                self._transport.subscribe(
                    [*presence_filters(heard), *stats]
                    + [topic_filter(kind, heard) for kind in (Kind.ANSWER, Kind.OFFER)]
                )
                self.nodes.clear()  # who is there now is said again
                self.lends.clear()
                self.connected, self.changed_s = True, time.monotonic()
            case LinkDown(reason):
                if self.connected:
                    self.changed_s = time.monotonic()
                self.connected, self.reason = False, reason
                self.tries += 1
            case Arrived(topic, payload):
                self._arrived(topic, payload)

    def _arrived(self, text: str, payload: bytes) -> None:
        try:
            topic = topics.parse(text)
            message = decode(topic.kind, payload)
        except RemoteProtocolError:
            return
        now_s = time.monotonic()
        match message:
            case Status() if len(self.nodes) < MOST_NODES:
                seen = self.nodes.setdefault(
                    (topic.site, topic.node), Seen(message, Membership([topic.node]))
                )
                before = seen.membership.live
                seen.membership.status(topic.node, message)
                if message.state == "online" or (before and not seen.membership.live):
                    seen.status = message
            case Stats() if (topic.site, topic.node) in self.nodes:
                seen = self.nodes[topic.site, topic.node]
                seen.stats, seen.heard_s = message, now_s
            case WorkerOffer() if len(self.lends) < MOST_NODES:
                self.lends[topic.site, topic.node] = message  # may come before its Status
            case Answer():
                self.answers.append((now_s, message))
                answering = self.nodes.get((topic.site, message.node))
                if answering is not None:
                    answering.heard_s = now_s

    # ------------------------------------------------------------------ reporting

    def _online(self, seen: Seen) -> bool:
        return bool(seen.membership.live)

    def presence(self, seen: Seen) -> str:
        """Nothing is said to be so that was only so when the broker was last heard."""
        if not self.connected:
            return "unknown"
        if not self._online(seen):
            return seen.status.state
        since_s = seen.heard_s if seen.heard_s is not None else self.changed_s
        return "silent" if time.monotonic() - since_s > self.silent_s else "online"

    def lenders(self) -> dict[str, WorkerOffer]:
        """The site's nodes that are there and lend computing power."""
        return {
            node: lend
            for (site, node), lend in self.lends.items()
            if (site, node) in self.nodes and self._online(self.nodes[site, node])
            if lend.flops_per_s > 0
        }

    def bundle(self, node: str) -> str:
        """The id of the bundle that a node of the site announced."""
        return self.nodes[self.settings.site, node].status.bundle

    def report(self) -> dict[str, Any]:
        now_s = time.monotonic()
        return {
            "site": self.settings.site,
            "broker": self.settings.broker,
            "connected": self.connected,
            "listened_s": round(now_s - self.started_s, 1),
            "nodes": [self._node(*key, seen, now_s) for key, seen in sorted(self.nodes.items())],
            "exits": _exits([answer for _, answer in self.answers]),
            "last_answer_age_s": round(now_s - self.answers[-1][0], 1) if self.answers else None,
        }

    def _node(self, site: str, node: str, seen: Seen, now_s: float) -> dict[str, Any]:
        stats = seen.stats
        return {
            "site": site,
            "node": node,
            "role": seen.status.role,
            "presence": self.presence(seen),
            "version": seen.status.version,
            "bundle": seen.status.bundle,
            "heard_age_s": None if seen.heard_s is None else round(now_s - seen.heard_s, 1),
            "uptime_s": None if stats is None else round(stats.uptime_s, 1),
            "memory_bytes": None if stats is None else stats.memory_bytes,
            "counts": {} if stats is None else stats.counts,
            "gauges": {} if stats is None else stats.gauges,
        }

    @property
    def headline(self) -> str:
        where = f"site {self.settings.site} at {self.settings.broker}"
        if not self.connected:
            away_s = time.monotonic() - self.changed_s
            return f"{where}: the broker is away for {away_s:.0f} s: {self.reason}"
        if not self.nodes:
            return f"{where}: nobody is there; start a node, or correct --site"
        online = sum(self.presence(seen) == "online" for seen in self.nodes.values())
        return f"{where}: {online} of {len(self.nodes)} nodes online"


@contextmanager
def listening(settings: AnyNode) -> Iterator[Watched]:
    """A site that is listened to; LinkError where its broker cannot be reached."""
    watched = Watched(settings)
    try:
        watched.connect()
        yield watched
    finally:
        watched.close()


# ------------------------------------------------------------------------ figures


def _exits(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Per exit, from shallow to deep: answers, share, p50 latency; the exits that answered."""
    counted = Counter(answer.exit for answer in answers)
    return {
        tier: {
            "answers": counted[tier],
            "share": round(counted[tier] / len(answers), 4),
            "latency_p50_s": round(
                float(np.median([a.latency_s for a in answers if a.exit == tier])), 4
            ),
            "degraded": sum(a.exit == tier and a.quality == "degraded" for a in answers),
        }
        for tier in EXITS
        if counted[tier]
    }


def _rows(watched: Watched) -> list[tuple[str, ...]]:
    everywhere = watched.settings.site == EVERYWHERE
    return [
        (
            f"{row['site']}/{row['node']}" if everywhere else row["node"],
            row["role"],
            row["presence"],
            shown(row["version"]) or "-",
            shown(row["bundle"]) or "-",
            "-" if row["heard_age_s"] is None else f"{row['heard_age_s']:.1f} s",
            "-" if row["uptime_s"] is None else _duration(row["uptime_s"]),
            "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:.0f} MiB",
            " ".join(
                f"{shown(name)} {count}"
                for name, count in sorted(row["counts"].items())
                if count and not name.startswith(NOT_NOTEWORTHY)
            ),
        )
        for row in watched.report()["nodes"]
    ]


def _duration(seconds: float) -> str:
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _exit_lines(watched: Watched) -> list[str]:
    report = watched.report()
    if not report["exits"]:
        return [f"no answer in {report['listened_s']:.0f} s"]
    return [
        f"{tier:6} {100 * found['share']:5.1f} %  {found['answers']:5} answers  "
        f"p50 {1e3 * found['latency_p50_s']:.1f} ms  {found['degraded']} degraded"
        for tier, found in report["exits"].items()
    ] + [f"last answer {report['last_answer_age_s']:.1f} s ago"]


def _text(watched: Watched) -> str:
    rows = _rows(watched)
    lines = [watched.headline]
    if rows:
        table = [COLUMNS, *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
    return "\n".join([*lines, *_exit_lines(watched)])


# -------------------------------------------------------------------------- watch


def _watch(watched: Watched) -> None:
    with _screen() as show:
        try:
            while True:
                show(watched)
                until_s = time.monotonic() + REDRAW_S
                while (left_s := until_s - time.monotonic()) > 0:
                    watched.wait(left_s)
        except KeyboardInterrupt:
            return


@contextmanager
def _screen() -> Iterator[Callable[[Watched], None]]:
    """Draws over itself where rich is installed and this is a terminal, else prints again."""
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        yield lambda watched: click.echo(_text(watched) + "\n")
        return
    console = Console()
    if not console.is_terminal:
        yield lambda watched: click.echo(_text(watched) + "\n")
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda watched: live.update(_table(watched), refresh=True)


def _table(watched: Watched) -> Any:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    colours = {"online": "green", "stopped": "yellow", "silent": "yellow", "lost": "red"}
    table = Table(*COLUMNS)
    for row in _rows(watched):
        cells = [escape(cell) for cell in row]
        colour = colours.get(row[2], "dim")
        cells[2] = f"[{colour}]{cells[2]}[/]"
        table.add_row(*cells)
    lines = [escape(line) for line in _exit_lines(watched)]
    return Group(escape(watched.headline), table, *lines, "Ctrl-C ends")
