"""How much of the time each worker could be counted on, as the owner of a plan observes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

HALF_LIFE_S = 6 * 3600.0  # an hour of today says more about tomorrow than one of last week
MAX_GAP_S = 5.0  # between two observations; nothing is known of the rest of a longer one
MAX_NODES = 2048


class Observed(NamedTuple):
    """outage: the share of the time `seconds` in which the worker could not be counted on."""

    outage: float
    seconds: float


@dataclass(slots=True)
class _Times:
    up_s: float = 0.0
    down_s: float = 0.0


class Availability:
    """Times in which workers could and could not be counted on; earlier times count less.

    It outlives plans: the pools of successive plans share one. Of times without the broker, and of
    workers that were never seen, nothing is known.
    """

    def __init__(self) -> None:
        self._times: dict[str, _Times] = {}
        self._observed_s: float | None = None

    def observe(self, workers: Mapping[str, bool], now_s: float) -> None:
        """workers: whether each can be counted on now."""
        before_s, self._observed_s = self._observed_s, now_s
        for name in workers.keys() - self._times.keys():
            if len(self._times) < MAX_NODES:
                self._times[name] = _Times()
        if before_s is None:
            return
        passed_s = min(max(now_s - before_s, 0.0), MAX_GAP_S)
        kept = 0.5 ** (passed_s / HALF_LIFE_S)
        for name, times in self._times.items():
            if name in workers:
                times.up_s = times.up_s * kept + passed_s * workers[name]
                times.down_s = times.down_s * kept + passed_s * (not workers[name])

    def pause(self) -> None:
        """Nothing is observed until the next `observe`."""
        self._observed_s = None

    def read(self, name: str) -> Observed:
        """What was observed of a worker; seconds 0: nothing."""
        times = self._times.get(name, _Times())
        seconds = times.up_s + times.down_s
        return Observed(times.down_s / seconds if seconds else 0.0, seconds)
