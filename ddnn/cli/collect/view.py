"""What a person sees while recording: each camera, its pictures, and the balance of classes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ddnn.cli.observer import make_printable
from ddnn.data.recordings import RecordingStore
from ddnn.machines.picture_collector import PictureCollector

COLUMNS = ("camera", "node", "recording", "pictures", "waiting", "lost", "light", "sharp", "look")
LINE_EVERY_S = 5.0
REDRAW_S = 0.5
COLOURS = {"recording": "bold red", "refused": "yellow", "offline": "red"}


def make_rows(collector: PictureCollector, store: RecordingStore) -> list[tuple[str, ...]]:
    """One row of COLUMNS for each device."""
    rows: list[tuple[str, ...]] = []
    for node, device in sorted(collector.devices.items()):
        state, quality = device.state, device.newest
        rows.append(
            (
                node,
                "online" if device.is_online else "offline",
                state.state if state else "no report",
                str(len(device.kept)),
                str(state.waiting) if state else "-",
                str(state.dropped) if state else "-",
                f"{quality.brightness:.0f}" if quality else "-",
                f"{quality.sharpness:.0f}" if quality else "-",
                ", ".join(quality.complaints)
                if quality
                else make_printable(state.reason if state else "", 90),
            )
        )
    return rows


def make_balance(store: RecordingStore, newest: bool = False) -> list[str]:
    """Lines with the pictures of each class by camera, of all sessions in the directory."""
    counts = store.count_classes()
    most = max((sum(cameras.values()) for cameras in counts.values()), default=0)
    lines = []
    for label, cameras in sorted(counts.items()):
        total = sum(cameras.values())
        bar = "█" * max(1, round(20 * total / most)) if total else ""
        each = " ".join(f"{camera} {count}" for camera, count in sorted(cameras.items()))
        lines.append(f"{label[:20]:20} {bar:20} {total} pictures: {each}")
    return lines


class View:
    """The live view, or a line every few seconds where there is no terminal."""

    def __init__(self, collector: PictureCollector, store: RecordingStore, live: Any) -> None:
        self._collector, self._store, self._live = collector, store, live
        self.title = ""
        self.keys = ""
        self._next_s = 0.0
        self._balance: list[str] = []
        self._balance_at_s = 0.0

    def show(self) -> None:
        """Draw, unless that was done a moment ago."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + (REDRAW_S if self._live else LINE_EVERY_S)
        if self._live is None:
            click.echo(self._make_line(), err=True)
            return
        if now_s >= self._balance_at_s:
            self._balance, self._balance_at_s = make_balance(self._store), now_s + 2.0
        self._live.update(self._make_table(), refresh=True)

    def _make_line(self) -> str:
        collector = self._collector
        rows = [
            f"{row[0]} {row[2]} {row[3]}{f' ({row[8]})' if row[8] else ''}"
            for row in make_rows(collector, self._store)
        ]
        return f"ddnn: {self.title}: {collector.count_samples()} samples; {', '.join(rows)}"

    def _make_table(self) -> Any:
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        samples, mib = self._collector.count_samples(), self._collector.kept_bytes / 2**20
        table = Table(*COLUMNS, title=escape(f"{self.title} · {samples} samples · {mib:.1f} MiB"))
        for row in make_rows(self._collector, self._store):
            cells = [escape(cell) for cell in row]
            for i in (1, 2):
                if row[i] in COLOURS:
                    cells[i] = f"[{COLOURS[row[i]]}]{cells[i]}[/]"
            table.add_row(*cells)
        failure = self._collector.failure or self._collector.ended_because
        notes = [failure] if failure else []
        if not self._collector.is_connected:
            notes.append("the broker is away; devices keep their pictures")
        return Group(table, *map(escape, [*self._balance, *notes, self.keys]))


@contextmanager
def open_view(
    collector: PictureCollector, store: RecordingStore, *, quiet: bool
) -> Iterator[Callable[..., None]]:
    """Yield show(title, keys), which draws on standard error."""
    live = _make_live(quiet)
    view = View(collector, store, live)

    def show(title: str, keys: str = "Ctrl-C ends the recording") -> None:
        view.title, view.keys = title, keys
        view.show()

    if live is None:
        yield show
        return
    with live:
        yield show


def _make_live(quiet: bool) -> Any:
    """A live display; None where rich is missing or standard error is no terminal."""
    if quiet or not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return None
    return Live(console=Console(stderr=True), auto_refresh=False)


__all__ = ["make_balance", "make_printable", "make_rows", "open_view"]
