"""Memory, handles, threads and queue of processes: what they reach, and by how much they grow.

Lives that end early hide a slow leak, so only lives of at least MIN_LIFE_S are judged: the medians
of the first and the last quarter after WARM_UP_S are compared. Memory is what is resident and not
backed by a file: the demo's cameras map their frames from one. A sample leaves its number behind in
the machines' bounded memory of closed samples (8192, under 2 MB), and the allocator adds as much
again; a process that holds the database has SQLite's page cache as well (2 MB for each of a few
connections). Handles and threads may differ by those of a reconnect that is under way.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

WARM_UP_S, MIN_LIFE_S = 30.0, 90.0
DATABASE_MEMORY_MB = 16.0  # allowed growth of the processes that hold the database
QUANTITIES = ("memory_mb", "handles", "threads", "queue")
Row = tuple[float, float, float, float, float]  # age_s and QUANTITIES


@dataclass(frozen=True)
class Bounds:
    """How much a long life may grow, and what no life may reach."""

    memory_mb: float = 4.0
    handles: float = 4
    threads: float = 2
    queue: float = 100  # messages waiting for the machine: about a second's worth
    peak_handles: float = 128
    peak_threads: float = 64  # the page's server holds 40
    peak_queue: float = 5000  # a quarter of where the loop refuses messages


BOUNDS = Bounds()


@dataclass(slots=True)
class Life:
    """One process from start to end, read every second."""

    process: psutil.Process
    started_s: float  # monotonic
    rows: list[Row] = field(default_factory=list)

    def record(self, queue: float | None) -> None:
        """Add a row. queue: None where the process has not reported it, kept as NaN."""
        with self.process.oneshot():
            memory = self.process.memory_info()
            self.rows.append(
                (
                    time.monotonic() - self.started_s,
                    (memory.rss - memory.shared) / 2**20,
                    self.process.num_fds(),
                    self.process.num_threads(),
                    math.nan if queue is None else queue,
                )
            )


def measure_growth(rows: Sequence[Row]) -> NDArray[np.float64] | None:
    """By how much each of QUANTITIES grew in a life; None: the life is too short to tell.

    NaN, which is within no bound, where the process has never reported a quantity.
    """
    table = np.array(rows, float)
    if not len(table) or table[-1, 0] < MIN_LIFE_S:
        return None
    table = table[table[:, 0] >= WARM_UP_S, 1:]
    quarter = max(1, len(table) // 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN
        first, last = (np.nanmedian(some, axis=0) for some in (table[:quarter], table[-quarter:]))
    return np.asarray(last - first)


def judge_growth(
    lives: Mapping[str, Sequence[Life]], with_database: Collection[str], *, long_lives: bool
) -> tuple[dict[str, Any], list[str]]:
    """Figures by node, and a sentence for each quantity beyond its bound.

    with_database: nodes that hold the database; long_lives: every node must have one to judge
    """
    report: dict[str, Any] = {}
    failures: list[str] = []
    for node, of_node in lives.items():
        grown = [g for life in of_node if (g := measure_growth(life.rows)) is not None]
        rows = [row for life in of_node for row in life.rows] or [(0.0, 0.0, 0.0, 0.0, 0.0)]
        most = np.max(grown, axis=0) if grown else None
        peak = np.max(np.nan_to_num(np.array(rows, float)), axis=0)
        report[node] = {
            "lives": len(of_node),
            "longest_life_s": round(float(peak[0]), 1),
            "lives_judged": len(grown),
            "growth": None if most is None else _by_quantity(most),
            "peak": _by_quantity(peak[1:]),
        }
        if most is not None:
            memory_mb = DATABASE_MEMORY_MB if node in with_database else BOUNDS.memory_mb
            bounds = (memory_mb, BOUNDS.handles, BOUNDS.threads, BOUNDS.queue)
            failures += _describe_excess(f"{node}: %s grew by %.1f in one life", most, bounds)
        elif long_lives:
            failures.append(f"{node}: no life of {MIN_LIFE_S:.0f} s to judge growth by")
        bounds = (math.inf, BOUNDS.peak_handles, BOUNDS.peak_threads, BOUNDS.peak_queue)
        failures += _describe_excess(f"{node}: %s reached %.1f", peak[1:], bounds)
    return report, failures


def _by_quantity(figures: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        name: None if math.isnan(x) else round(float(x), 2)
        for name, x in zip(QUANTITIES, figures, strict=True)
    }


def _describe_excess(text: str, figures: NDArray[np.float64], bounds: Sequence[float]) -> list[str]:
    return [
        f"{text % (name, figure)}; at most {bound:g} is allowed"
        for name, figure, bound in zip(QUANTITIES, figures, bounds, strict=True)
        if not figure <= bound
    ]
