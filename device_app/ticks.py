"""Which frame is which sample. Ticks are whole periods of the site's time, alike on all devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from ddnn.core.ids import tick_of
from ddnn.protocol.machine import Captured
from device_app.sources import FrameSource

SET_BACK_S = 1.0  # a clock that goes back by less (and by two periods) is waited for
LATENCY_S = 0.2  # what cameras take from exposure to delivery is no staleness, however short a tick

T = TypeVar("T")
Clock = Callable[[], float]


class Clocked:
    """A stored frame at every tick; ticks that were missed are passed over.

    wall:      the site's time
    monotonic: of this machine
    """

    def __init__(
        self,
        source: FrameSource,
        period_s: float,
        wall: Clock = time.time,
        monotonic: Clock = time.monotonic,
        seen: Callable[[float], None] = lambda taken_s: None,
    ) -> None:
        self.source, self._period_s = source, period_s
        self._wall, self._monotonic, self._seen = wall, monotonic, seen
        self._tick = tick_of(wall(), period_s) + 1

    def due_s(self) -> float:
        """Monotonic time of the next tick, by what the site's time is now."""
        now_s = self._wall()
        ahead_s = (self._tick - 1) * self._period_s - now_s
        if ahead_s > max(SET_BACK_S, 2 * self._period_s):
            self._tick = tick_of(now_s, self._period_s) + 1
        return self._monotonic() + self._tick * self._period_s - now_s

    def take(self) -> Captured:
        tick = max(self._tick, tick_of(self._wall(), self._period_s))
        self._tick = tick + 1
        frame = self.source.frame(tick)
        self._seen(self._monotonic())
        return Captured(tick, tick * self._period_s, {"image": frame.image}, frame.label)


class Sample(NamedTuple, Generic[T]):
    tick: int
    taken_s: float
    image: T


class Nearest(Generic[T]):
    """Of a live camera's frames, for each tick the one that was taken nearest to it.

    A frame belongs to the tick next to the moment when it was taken, half a period away at most,
    so that the samples of all cameras show the same instant. Nothing waits for long: a frame is
    chosen at once where the next one, as far away as the last one was, cannot be nearer; else it
    is held until that has come.
    """

    def __init__(self, period_s: float, counts: dict[str, int]) -> None:
        self._period_s, self._counts = period_s, counts
        self._stale_s = max(period_s, LATENCY_S)
        self._last = -1  # the newest tick that has its frame
        self._before_s = -math.inf
        self._held: Sample[T] | None = None

    def offer(self, taken_s: float, age_s: float, read: Callable[[], T]) -> list[Sample[T]]:
        """The frame taken at `taken_s` of the site's time, `age_s` ago, is there; `read` gets it.

        Returns what becomes a sample now, oldest first.
        """
        gap_s, self._before_s = taken_s - self._before_s, taken_s
        tick = tick_of(taken_s + self._period_s / 2, self._period_s)
        if (self._last - tick) * self._period_s > max(SET_BACK_S, 2 * self._period_s):
            self._last, self._held = tick - 1, None
        chosen = []
        held, self._held = self._held, None
        if held is not None and held.tick != tick:
            if age_s + taken_s - held.taken_s <= self._stale_s:
                chosen.append(self._choose(held))
            else:
                self._counts["frames_stale"] += 1
            held = None
        before_s = tick * self._period_s - taken_s
        if age_s > self._stale_s:
            self._counts["frames_stale"] += 1
            self._held = held
        elif tick <= self._last:
            self._counts["frames_dropped"] += 1
        elif before_s > 1.5 * gap_s:  # the next is nearer, and the one after that not too late
            self._counts["frames_dropped"] += 1
            self._held = held
        elif held is not None and abs(held.tick * self._period_s - held.taken_s) <= abs(before_s):
            self._counts["frames_dropped"] += 1
            chosen.append(self._choose(held))
        else:
            self._counts["frames_dropped"] += held is not None
            this = Sample(tick, taken_s, read())
            if before_s > gap_s / 2:
                self._held = this
            else:
                chosen.append(self._choose(this))
        return chosen

    def _choose(self, sample: Sample[T]) -> Sample[T]:
        self._last = sample.tick
        return sample
