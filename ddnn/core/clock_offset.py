"""How old a message is, without trusting that two clocks agree."""

from __future__ import annotations

from collections import deque

RESOLUTION = 256  # steps of the window: bounds what is remembered, however much is observed


class ClockOffset:
    """Minimum filter over (arrival - capture): the classic one-way offset estimate.

    The smallest difference seen in the last `window_s` (forgotten up to 1/256 of it early) is the
    clock offset plus the fastest transit; anything above it is age. The two clocks may be of
    different kinds (wall against monotonic), may be months apart, and may drift by what the window
    forgets.
    """

    def __init__(self, window_s: float = 300.0) -> None:
        self._window_s = window_s
        # (arrival, difference), differences increasing: the head is the minimum of the window
        self._minima: deque[tuple[float, float]] = deque()

    def age_s(self, captured_s: float, arrived_s: float) -> float:
        """Take one observation and return its age in seconds, >= 0."""
        difference = arrived_s - captured_s
        while self._minima and self._minima[-1][1] >= difference:
            self._minima.pop()
        step_s = self._window_s / RESOLUTION
        if not self._minima or arrived_s - self._minima[-1][0] >= step_s:
            self._minima.append((arrived_s, difference))
        while self._minima[0][0] < arrived_s - self._window_s:
            self._minima.popleft()
        return difference - self._minima[0][1]
