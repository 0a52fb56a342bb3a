"""Wall time for the store, which no step of the clock changes and by which rows may be deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

STEP_S = 60.0  # a larger change against the monotonic clock is a step
TRUST_AFTER_S = 86400.0  # without a step; so much later than the newest row a start is credible
Clock = Callable[[], float]


class SteadyClock:
    """The wall clock of a store's process. Any thread may read it.

    After a step of the wall clock the time runs on as before, and the wall clock is believed again
    once it has run for a day without another step. Until then nothing may be deleted by its age,
    and afterwards what was stored before is younger than it looks (`behind_from_s`). At
    the start it is believed if the newest row of the store is at most a day old, and not of the
    future. A machine that was off for longer waits for a day, too.
    """

    def __init__(
        self,
        newest_s: float | None,
        wall: Clock = time.time,
        monotonic: Clock = time.monotonic,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """newest_s: when the newest row was stored; None: there is none."""
        self._wall, self._monotonic, self._report = wall, monotonic, report
        self._lock = threading.Lock()
        now_s, at_s = wall(), monotonic()
        ahead_s = 0.0 if newest_s is None else now_s - newest_s
        self._is_trusted = -STEP_S <= ahead_s <= TRUST_AFTER_S
        self._seen_s = now_s - at_s  # wall - monotonic at the last reading
        self._unchanged_since_s = at_s
        # A clock that is behind the newest row runs on from there.
        self._offset_s = max(now_s, newest_s or now_s) - at_s if ahead_s < -STEP_S else self._seen_s
        self._from_s = at_s + self._offset_s
        # Rows that were stored from then on have a time that is behind; None: there are none.
        self.behind_from_s: float | None = None

    def read(self) -> float:
        """Seconds since 1970."""
        with self._lock:
            return self._follow() + self._offset_s

    def is_trusted(self) -> bool:
        """Whether rows may be deleted by their age."""
        with self._lock:
            self._follow()
            return self._is_trusted

    def _follow(self) -> float:
        """Follow the wall clock where it is believed. Returns the monotonic time."""
        at_s = self._monotonic()
        offset_s = self._wall() - at_s
        step_s, self._seen_s = offset_s - self._seen_s, offset_s
        if abs(step_s) > STEP_S:
            self._is_trusted, self._unchanged_since_s = False, at_s
            direction = "ahead" if step_s > 0 else "back"
            self._report(f"the clock was set {abs(step_s):.0f} s {direction}: nothing is deleted")
        elif at_s - self._unchanged_since_s >= TRUST_AFTER_S:
            self._is_trusted = True
        if self._is_trusted:
            ahead_s, self._offset_s = offset_s - self._offset_s, offset_s
            if ahead_s > STEP_S:
                self.behind_from_s = self._from_s
        return at_s
