"""The demo's view in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ddnn.exits.manifest import Manifest
from ddnn.local_site.watcher import Watcher
from ddnn.runtime.fleet import Fleet

NEWEST = 8


@contextmanager
def show_live_view(
    manifest: Manifest, page: str, fleet: Fleet, watcher: Watcher
) -> Iterator[Callable[[], None]]:
    """Show a table on standard error; yield the function that draws it again.

    `page` is the URL of the dashboard.
    """
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=8) as live:
        yield lambda: live.update(_make_table(manifest, page, fleet, watcher))


def _make_table(manifest: Manifest, page: str, fleet: Fleet, watcher: Watcher) -> Any:
    from rich.table import Table

    with watcher.lock:
        answers = list(watcher.answers.values())
    total = max(1, len(answers))
    known = [a for a in answers if a.truth is not None and a.truth >= 0]
    right = sum(a.label == a.truth for a in known)
    table = Table(
        title=f"ddnn · {len(answers)} answered · "
        + (f"{100 * right / len(known):.1f} % right · " if known else "")
        + " · ".join(
            f"{tier} {100 * sum(a.exit == tier for a in answers) / total:.0f} %"
            for tier in (*manifest.hierarchy.exits, "device")
        ),
        caption=f"page: {page} · "
        + " ".join(f"[{'green' if fleet.is_alive(n) else 'red'}]{n}[/]" for n in fleet.nodes)
        + " · Ctrl-C ends all",
    )
    for column in ("sample", "answer", "exit", "sure", "members", "quality", "ms", "bytes"):
        table.add_column(column)
    for answer in sorted(answers, key=lambda a: a.sample)[-NEWEST:]:
        known_label = 0 <= answer.label < len(manifest.classes)
        name = manifest.classes[answer.label] if known_label else "none"
        table.add_row(
            str(answer.sample % 100_000),
            name,
            answer.exit,
            f"{100 * max(answer.probabilities, default=0):.0f} %",
            f"{len(answer.members)}/{len(manifest.hierarchy.devices)}",
            answer.quality,
            f"{1e3 * answer.latency_s:.1f}",
            str(answer.payload_bytes),
        )
    return table
