"""What every result says of itself: command, date and machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np


def header(program: str, arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """The first keys of a JSON result; by default with the arguments of this process."""
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{program}", *given]),
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "machine": f"{platform.machine()} Python {platform.python_version()}",
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the description as it is written, with --json."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print one JSON object on one line")
    return made


def ended_cleanly() -> None:
    """SIGTERM ends as Ctrl-C does, wherever it was started: no process is left behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


def show(report: dict[str, Any], *, one_line: bool) -> None:
    print(json.dumps(report, indent=None if one_line else 1))


def quantiles_ms(seconds: Sequence[float]) -> dict[str, float | None]:
    """p50 and p99 in milliseconds; None where nothing was measured."""
    if not len(seconds):
        return {"p50_ms": None, "p99_ms": None}
    p50, p99 = np.percentile(np.asarray(seconds), [50, 99])
    return {"p50_ms": round(1e3 * float(p50), 2), "p99_ms": round(1e3 * float(p99), 2)}


@contextmanager
def bar(what: str, total: float) -> Iterator[Callable[..., None]]:
    """progress(done, what): a bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(what, total=total)

        def progress(done: float, now: str = what) -> None:
            shown.update(task, completed=done, description=now)

        yield progress
