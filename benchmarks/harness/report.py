"""The command line and the report of every benchmark.

A report is a dictionary that JSON can hold. Its first keys name command, commit, date and machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import ROOT

Report = dict[str, Any]
Progress = Callable[..., None]  # progress(done, text)


def make_parser(description: str | None, seed: str = "of data and training") -> Any:
    """A parser with --seed and --json that prints the description as it is written.

    seed: what --seed fixes, for its help
    """
    main = sys.modules["__main__"].__spec__
    parser = argparse.ArgumentParser(
        prog=f"python -m {main.name.removesuffix('.__main__')}" if main else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0, help=f"{seed} [0]")
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    return parser


def make_header(program: str, arguments: Sequence[str] | None = None) -> Report:
    """The first keys of a report. arguments: by default those of this process."""
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{program}", *given]),
        "commit": read_commit(ROOT),
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "machine": f"{platform.machine()} Python {platform.python_version()}",
    }


def read_commit(tree: Path) -> str | None:
    """The commit of a checkout, with "-dirty" where files differ from it; None without git."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def print_report(report: Report, *, as_json: bool) -> None:
    """Print one JSON object on one line, or a table."""
    print(json.dumps(report) if as_json else "\n".join(format_rows(report)))


def format_rows(report: Report, path: str = "") -> Iterator[str]:
    """The lines of a report's table: one per value, and one per dictionary within the report."""
    nested: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for key, value in report.items():
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        (nested if isinstance(value, dict) else values)[key] = value
    if path and values:
        yield f"{path:28}" + "".join(f"  {key} {value}" for key, value in values.items())
    elif values:
        yield from (f"{key:28}  {value}" for key, value in values.items())
    for key, value in nested.items():
        yield from format_rows(value, f"{path}.{key}" if path else key)


def flatten(report: Report, prefix: str = "") -> dict[str, Any]:
    """The values of a report by path, such as "local.p50_ms" and "sustained.0.rate_hz"."""
    flat: dict[str, Any] = {}
    for key, value in report.items():
        path = f"{prefix}{key}"
        if isinstance(value, list):
            value = {str(index): of for index, of in enumerate(value)}
        flat |= flatten(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


@contextmanager
def progress_bar(text: str, total: float) -> Iterator[Progress]:
    """Yields progress(done, text), a bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(text, total=total)

        def progress(done: float, now: str = text) -> None:
            shown.update(task, completed=done, description=now)

        yield progress
