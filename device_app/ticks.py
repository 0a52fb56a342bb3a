"""Assignment of frames to samples. Ticks are whole periods of the site's time on all devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from ddnn.core.pace import PaceHistory
from ddnn.core.site_time import (
    SET_BACK_S,
    SiteTime,
    find_epoch,
    find_sample_id,
    find_tick,
)
from ddnn.protocol.machine import Captured
from ddnn.runtime.pictures import Image
from device_app.sources import FrameSource

LATENCY_S = 0.2  # from exposure to delivery; a frame of this age is never stale

T = TypeVar("T")
Clock = Callable[[], float]
SiteClock = Callable[[], SiteTime]
# The JPEG of a sample's picture (and whether that is BGR), where a recording wants it; else None.
Tap = Callable[[int, Image, bool], bytes | None]
PaceReader = Callable[[], PaceHistory]


def read_own_clock() -> SiteTime:
    """Site time of a device without a site clock: the wall clock."""
    return SiteTime(0, time.time())


class StoredFrames:
    """A stored frame at every tick that the site takes.

    Ticks that passed more than `LATENCY_S` ago are skipped and counted, but the tick that is taken
    instead is one that the site takes, too: a late camera must not take the ticks of its own.

    clock:     the site's time
    monotonic: this machine's monotonic time in seconds
    report:    called with the monotonic time of each frame
    tap:       gives the picture of a frame for a recording
    pace:      which ticks the site takes
    counts:    `frames_late` are skipped because they are late, `frames_shed` by the pace
    """

    def __init__(
        self,
        source: FrameSource,
        period_s: float,
        clock: SiteClock = read_own_clock,
        monotonic: Clock = time.monotonic,
        report: Callable[[float], None] = lambda taken_s: None,
        pace: PaceReader = PaceHistory,
        counts: dict[str, int] | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.source, self._period_s = source, period_s
        self._clock, self._monotonic, self._report, self._tap = clock, monotonic, report, tap
        self._pace, self._counts = pace, {} if counts is None else counts
        self._epoch, self._after = self._find_newest(clock())

    def due_s(self) -> float:
        """Monotonic time of the next tick, by the present offset of the site's time."""
        time = self._clock()
        ahead_s = self._find_time_s(self._after) - time.time_s
        if time.epoch != self._epoch or ahead_s > max(SET_BACK_S, 2 * self._period_s):
            self._epoch, self._after = self._find_newest(time)
        tick = find_tick(self._pace().find_next(self._after + 1))
        return self._monotonic() + tick * self._period_s - time.time_s

    def take(self) -> Captured:
        """The frame of the next tick that is not skipped."""
        time, pace = self._clock(), self._pace()
        newest = pace.find_last(self._find_newest(time)[1])
        oldest = self._find_newest(time._replace(time_s=time.time_s - LATENCY_S))[1] + 1
        next_one = pace.find_next(self._after + 1)
        sample = max(next_one, min(pace.find_next(oldest), newest))
        self._count(pace, sample)
        self._after = sample
        tick = find_tick(sample)
        frame = self.source.read_frame(tick)
        self._report(self._monotonic())
        picture = None
        if self._tap is not None:
            shown = frame.image if frame.picture is None else frame.picture
            picture = self._tap(sample, shown, frame.bgr)
        return Captured(sample, tick * self._period_s, {"image": frame.image}, frame.label, picture)

    def _find_newest(self, time: SiteTime) -> tuple[int, int]:
        """The epoch, and the newest sample at this time."""
        return time.epoch, find_sample_id(time, self._period_s)

    def _find_time_s(self, sample: int) -> float:
        return find_tick(sample) * self._period_s

    def _count(self, pace: PaceHistory, sample: int) -> None:
        """Count the ticks between the sample before and this one."""
        shed = pace.count_shed(self._after + 1, sample)
        late = sample - self._after - 1 - shed
        for name, ticks in (("frames_shed", shed), ("frames_late", late)):
            self._counts[name] = self._counts.get(name, 0) + ticks


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
    until the next one comes. Frames of ticks that the site does not take are not decoded.
    """

    def __init__(
        self, period_s: float, counts: dict[str, int], pace: PaceReader = PaceHistory
    ) -> None:
        self._period_s, self._counts, self._pace = period_s, counts, pace
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
        elif not self._pace().is_admitted(number):
            self._counts["frames_shed"] += 1
            self._last = number
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
