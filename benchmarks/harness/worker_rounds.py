"""Rounds in which systems run one after the other, and their workers are killed and stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.report import Progress
from benchmarks.harness.worker_site import RATE_HZ, LatencySite

ALONE = "alone"  # the system without workers


@dataclass(frozen=True)
class Schedule:
    """How many rounds are measured, and the seconds of each phase.

    The first of the systems is judged, and its workers vanish `cycles` times per round.
    """

    rounds: int
    cycles: int
    free_s: float
    hit_s: float
    systems: tuple[str, ...]
    alone_s: float = 0.0  # what else is done while no workers run
    settle_s: float = 1.5  # after a start, before samples count
    rate_hz: float = RATE_HZ

    def total_s(self) -> float:
        """An estimate, for the progress bar."""
        cycles = self.cycles + len([system for system in self.systems[1:] if system != ALONE])
        cycle_s = 2 * self.free_s + 2 * self.hit_s + 3.0 + self.settle_s
        starts_s = len(self.systems) * (2.5 + self.settle_s)
        return self.rounds * (starts_s + cycles * cycle_s + self.free_s + self.alone_s)


def run_rounds(
    site: LatencySite,
    schedule: Schedule,
    draw_losses: Callable[[np.random.Generator], list[str]],
    random: np.random.Generator,
    progress: Progress,
    while_alone: Callable[[], None] = lambda: None,
) -> None:
    """All rounds. draw_losses: the workers that vanish together. while_alone: is called in each
    round while the edge works alone."""
    began_s, total_s = time.monotonic(), schedule.total_s()
    for round_ in range(schedule.rounds):
        losses = [(draw_losses(random), random.uniform()) for _ in range(2 * schedule.cycles)]
        for system in schedule.systems[:: 1 if round_ % 2 == 0 else -1]:
            done = (time.monotonic() - began_s) / total_s
            progress(min(done, 0.99), f"{system}, round {round_ + 1} of {schedule.rounds}")
            site.start_system(system)
            if system == ALONE:
                site.run_free(schedule.free_s)
                while_alone()
                continue
            for cycle in range(schedule.cycles if system == schedule.systems[0] else 1):
                kinds = (signal.SIGKILL, signal.SIGSTOP)
                for kind, (workers, share) in zip(kinds, losses[2 * cycle :], strict=False):
                    site.run_free(schedule.free_s)
                    site.strike(kind, workers, share, schedule.hit_s)
    progress(1.0, "latency")
