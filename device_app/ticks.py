"""Assignment of frames to samples. Ticks are whole periods of the site's time on all devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from ddnn.core.ids import tick_of
from ddnn.core.site_time import (
    SET_BACK_S,
    SiteTime,
    find_epoch,
    find_sample_id,
    find_tick,
    make_sample_id,
)
from ddnn.protocol.machine import Captured
from device_app.sources import FrameSource

LATENCY_S = 0.2  # from exposure to delivery; a frame of this age is never stale

T = TypeVar("T")
Clock = Callable[[], float]
SiteClock = Callable[[], SiteTime]


def read_own_clock() -> SiteTime:
    """Site time where nobody tells it: the wall clock."""
    return SiteTime(0, time.time())


class StoredFrames:
    """A stored frame at every tick; ticks that passed more than `LATENCY_S` ago are skipped.

    clock:     the site's time
    monotonic: this machine's monotonic time in seconds
    report:    called with the monotonic time of each frame
    """

    def __init__(
        self,
        source: FrameSource,
        period_s: float,
        clock: SiteClock = read_own_clock,
        monotonic: Clock = time.monotonic,
        report: Callable[[float], None] = lambda taken_s: None,
    ) -> None:
        self.source, self._period_s = source, period_s
        self._clock, self._monotonic, self._report = clock, monotonic, report
        time = clock()
        self._epoch, self._tick = time.epoch, tick_of(time.time_s, period_s) + 1

    def due_s(self) -> float:
        """Monotonic time of the next tick, by the present offset of the site's time."""
        epoch, now_s = self._clock()
        ahead_s = (self._tick - 1) * self._period_s - now_s
        if epoch != self._epoch or ahead_s > max(SET_BACK_S, 2 * self._period_s):
            self._epoch, self._tick = epoch, tick_of(now_s, self._period_s) + 1
        return self._monotonic() + self._tick * self._period_s - now_s

    def take(self) -> Captured:
        """The frame of the next tick that is not skipped."""
        now_s = self._clock().time_s
        oldest = tick_of(now_s - LATENCY_S, self._period_s) + 1
        tick = max(self._tick, min(oldest, tick_of(now_s, self._period_s)))
        self._tick = tick + 1
        frame = self.source.read_frame(tick)
        self._report(self._monotonic())
        sample = make_sample_id(self._epoch, tick)
        return Captured(sample, tick * self._period_s, {"image": frame.image}, frame.label)


class Sample(NamedTuple, Generic[T]):
    """A live frame that is assigned to a sample; taken_s: of the site's time."""

    number: int
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
        self._last = -1  # the newest sample that has a frame
        self._before_s = -math.inf
        self._held: Sample[T] | None = None

    def offer(self, now: SiteTime, age_s: float, read: Callable[[], T]) -> list[Sample[T]]:
        """Offer the frame taken `age_s` before `now`, the site's time; `read` decodes it.

        Returns the frames that become samples now, oldest first.
        """
        taken_s = now.time_s - age_s
        gap_s, self._before_s = taken_s - self._before_s, taken_s
        nearest = SiteTime(now.epoch, taken_s + self._period_s / 2)
        number = find_sample_id(nearest, self._period_s)
        back_s = (self._last - number) * self._period_s  # huge, or negative, in another epoch
        if find_epoch(self._last) != now.epoch or back_s > max(SET_BACK_S, 2 * self._period_s):
            self._last, self._held = number - 1, None
        samples = []
        held, self._held = self._held, None
        if held is not None and held.number != number:
            if age_s + taken_s - held.taken_s <= self._stale_s:
                samples.append(self._choose(held))
            else:
                self._counts["frames_stale"] += 1
            held = None
        before_s = self._find_time_s(number) - taken_s
        if age_s > self._stale_s:
            self._counts["frames_stale"] += 1
            self._held = held
        elif number <= self._last:
            self._counts["frames_dropped"] += 1
        elif before_s > 1.5 * gap_s:  # the next frame is nearer, and the one after it not too late
            self._counts["frames_dropped"] += 1
            self._held = held
        elif held is not None and abs(self._find_time_s(number) - held.taken_s) <= abs(before_s):
            self._counts["frames_dropped"] += 1
            samples.append(self._choose(held))
        else:
            self._counts["frames_dropped"] += held is not None
            this = Sample(number, taken_s, read())
            if before_s > gap_s / 2:
                self._held = this
            else:
                samples.append(self._choose(this))
        return samples

    def _find_time_s(self, number: int) -> float:
        return find_tick(number) * self._period_s

    def _choose(self, sample: Sample[T]) -> Sample[T]:
        self._last = sample.number
        return sample
