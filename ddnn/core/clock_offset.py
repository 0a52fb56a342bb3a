"""How old a message is, without trusting that two clocks agree."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

STEPS, STEP_S, STEADY_S, AGED_S = 6, 1.0, 0.1, 0.4
RESOLUTION = 256  # steps of the window: bounds what is remembered, however much is observed


class _Run(NamedTuple):
    """Observations one after the other that all look old, and equally so."""

    began_s: float
    least: float
    most: float
    seen: int


class ClockOffset:
    """Minimum filter over (arrival - capture): the classic one-way offset estimate.

    The smallest difference seen in the last `window_s` (forgotten up to 1/256 of it early) is the
    clock offset plus the fastest transit; anything above it is age. The two clocks may be of
    different kinds (wall against monotonic), may be months apart, and may drift by what the window
    forgets.

    A clock that was set back makes everything look old at once, and evenly so: `STEPS` observations
    over at least `STEP_S` that agree to `STEADY_S` and are all older than `AGED_S` are taken for
    that. A queue that stood still and is drained looks old, too, but less so with each message.
    """

    def __init__(self, window_s: float = 300.0) -> None:
        self._window_s = window_s
        # (arrival, difference), differences increasing: the head is the minimum of the window
        self._minima: deque[tuple[float, float]] = deque()
        self._run: _Run | None = None

    def age_s(self, captured_s: float, arrived_s: float) -> float:
        """Take one observation and return its age in seconds, >= 0."""
        difference = arrived_s - captured_s
        if self._was_set_back(difference, arrived_s):
            self._minima.clear()
        while self._minima and self._minima[-1][1] >= difference:
            self._minima.pop()
        step_s = self._window_s / RESOLUTION
        if not self._minima or arrived_s - self._minima[-1][0] >= step_s:
            self._minima.append((arrived_s, difference))
        while self._minima[0][0] < arrived_s - self._window_s:
            self._minima.popleft()
        return difference - self._minima[0][1]

    def _was_set_back(self, difference: float, arrived_s: float) -> bool:
        if not self._minima or difference - self._minima[0][1] <= AGED_S:
            self._run = None
            return False
        run = self._run
        if run is None or max(run.most, difference) - min(run.least, difference) > STEADY_S:
            self._run = _Run(arrived_s, difference, difference, 1)
            return False
        least, most = min(run.least, difference), max(run.most, difference)
        self._run = _Run(run.began_s, least, most, run.seen + 1)
        return run.seen + 1 >= STEPS and arrived_s - run.began_s >= STEP_S
