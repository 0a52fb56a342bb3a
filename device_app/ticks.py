"""Assignment of frames to samples. Ticks are whole periods of the site's time on all devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from ddnn.core.ids import tick_of
from ddnn.protocol.machine import Captured
from device_app.sources import FrameSource

SET_BACK_S = 1.0  # after a larger step back of the clock (and of two periods) ticks start again
LATENCY_S = 0.2  # from exposure to delivery; a frame of this age is never stale

T = TypeVar("T")
Clock = Callable[[], float]


class StoredFrames:
    """A stored frame at every tick; ticks that passed more than `LATENCY_S` ago are skipped.

    wall:      the site's time in seconds
    monotonic: this machine's monotonic time in seconds
    report:    called with the monotonic time of each frame
    """

    def __init__(
        self,
        source: FrameSource,
        period_s: float,
        wall: Clock = time.time,
        monotonic: Clock = time.monotonic,
        report: Callable[[float], None] = lambda taken_s: None,
    ) -> None:
        self.source, self._period_s = source, period_s
        self._wall, self._monotonic, self._report = wall, monotonic, report
        self._tick = tick_of(wall(), period_s) + 1

    def due_s(self) -> float:
        """Monotonic time of the next tick, by the present offset of the site's time."""
        now_s = self._wall()
        ahead_s = (self._tick - 1) * self._period_s - now_s
        if ahead_s > max(SET_BACK_S, 2 * self._period_s):
            self._tick = tick_of(now_s, self._period_s) + 1
        return self._monotonic() + self._tick * self._period_s - now_s

    def take(self) -> Captured:
        """The frame of the next tick that is not skipped."""
        now_s = self._wall()
        oldest = tick_of(now_s - LATENCY_S, self._period_s) + 1
        tick = max(self._tick, min(oldest, tick_of(now_s, self._period_s)))
        self._tick = tick + 1
        frame = self.source.read_frame(tick)
        self._report(self._monotonic())
        return Captured(tick, tick * self._period_s, {"image": frame.image}, frame.label)


class Sample(NamedTuple, Generic[T]):
    """A live frame that is assigned to a tick; taken_s: of the site's time."""

    tick: int
    taken_s: float
    image: T


class NearestFrames(Generic[T]):
    """Assigns to each tick the frame of a live camera that was taken nearest to it.

    A frame belongs to the tick nearest to the moment when it was taken, at most half a period
    away, so that the samples of all cameras show the same instant. A frame is chosen at once if
    the next one, expected after the same gap as the last, cannot be nearer; otherwise it is held
    until the next one comes.
    """

    def __init__(self, period_s: float, counts: dict[str, int]) -> None:
        self._period_s, self._counts = period_s, counts
        self._stale_s = max(period_s, LATENCY_S)
        self._last = -1  # the newest tick that has a frame
        self._before_s = -math.inf
        self._held: Sample[T] | None = None

    def offer(self, taken_s: float, age_s: float, read: Callable[[], T]) -> list[Sample[T]]:
        """Offer the frame taken at `taken_s` of the site's time, `age_s` ago; `read` decodes it.

        Returns the frames that become samples now, oldest first.
        """
        gap_s, self._before_s = taken_s - self._before_s, taken_s
        tick = tick_of(taken_s + self._period_s / 2, self._period_s)
        if (self._last - tick) * self._period_s > max(SET_BACK_S, 2 * self._period_s):
            self._last, self._held = tick - 1, None
        samples = []
        held, self._held = self._held, None
        if held is not None and held.tick != tick:
            if age_s + taken_s - held.taken_s <= self._stale_s:
                samples.append(self._choose(held))
            else:
                self._counts["frames_stale"] += 1
            held = None
        before_s = tick * self._period_s - taken_s
        if age_s > self._stale_s:
            self._counts["frames_stale"] += 1
            self._held = held
        elif tick <= self._last:
            self._counts["frames_dropped"] += 1
        elif before_s > 1.5 * gap_s:  # the next frame is nearer, and the one after it not too late
            self._counts["frames_dropped"] += 1
            self._held = held
        elif held is not None and abs(held.tick * self._period_s - held.taken_s) <= abs(before_s):
            self._counts["frames_dropped"] += 1
            samples.append(self._choose(held))
        else:
            self._counts["frames_dropped"] += held is not None
            this = Sample(tick, taken_s, read())
            if before_s > gap_s / 2:
                self._held = this
            else:
                samples.append(self._choose(this))
        return samples

    def _choose(self, sample: Sample[T]) -> Sample[T]:
        self._last = sample.tick
        return sample
