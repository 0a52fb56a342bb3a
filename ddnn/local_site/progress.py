"""Progress bars and notes on standard error; standard output is for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield progress(what, done, total), which updates one bar for each phase.

    A phase is the text of `what` before the first comma.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def progress(what: str, done: int, total: int) -> None:
            phase = what.partition(",")[0]
            if phase not in tasks:
                tasks[phase] = bars.add_task(what, total=total)
            bars.update(tasks[phase], completed=done, total=total, description=what)  # type: ignore[arg-type]

        yield progress


def print_note(text: str) -> None:
    """Print one line."""
    click.echo(f"ddnn: {text}", err=True)
