"""Progress bars and notes on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """progress(what, done, total): one bar per phase; a phase is what stands before a comma."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, object] = {}

        def progress(what: str, done: int, total: int) -> None:
            phase = what.partition(",")[0]
            if phase not in tasks:
                tasks[phase] = shown.add_task(what, total=total)
            shown.update(tasks[phase], completed=done, total=total, description=what)  # type: ignore[arg-type]

        yield progress


def print_note(text: str) -> None:
    """Print a line on standard error, because standard output is for results."""
    click.echo(f"ddnn: {text}", err=True)
