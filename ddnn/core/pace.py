"""Which ticks all cameras of a site take when it cannot take them all.

A sample is of use only if all cameras take its tick. So which ticks are taken must follow from the
tick and the site's pace alone, however late a camera is: of any 1024 ticks in a row `share` are
taken, evenly spaced. With share 512 that is every second tick, with 256 every fourth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

ALL = 1024  # the share with which every tick is taken
KEEP = 64  # paces: those of several seconds, for messages that waited so long


class Pace(NamedTuple):
    """A share of the ticks, in force from the sample `since` on."""

    share: int  # 1 to ALL
    since: int

    def is_admitted(self, sample: int) -> bool:
        # An epoch has a multiple of ALL ticks, so that the id of a sample serves as its tick.
        return sample * self.share % ALL < self.share

    def find_next(self, sample: int) -> int:
        """The first admitted sample that is not before this one."""
        return -(-self._count_before(sample) * ALL // self.share)

    def find_last(self, sample: int) -> int:
        """The last admitted sample that is not after this one."""
        return -(-(self._count_before(sample + 1) - 1) * ALL // self.share)

    def count_admitted(self, first: int, end: int) -> int:
        """The number of admitted samples from `first` up to but not including `end`."""
        return self._count_before(end) - self._count_before(first)

    def _count_before(self, sample: int) -> int:
        return (sample - 1) * self.share // ALL + 1


EVERY_TICK = Pace(ALL, 0)


class PaceHistory(NamedTuple):
    """The paces of a site, oldest first; never changed, so that other threads may read it.

    A pace may be in force from a sample on that is past already. That sample and later ones that it
    does not admit are then shed, also where a camera has taken them.
    """

    paces: tuple[Pace, ...] = (EVERY_TICK,)

    @property
    def newest(self) -> Pace:
        return self.paces[-1]

    def add(self, pace: Pace, keep: int = KEEP) -> PaceHistory:
        """The history with one more pace, which replaces those that would begin after it."""
        before = tuple(old for old in self.paces if old.since < pace.since)
        return PaceHistory((*before, pace)[-keep:])

    def find_pace(self, sample: int) -> Pace:
        """The pace in force at this sample."""
        for pace in reversed(self.paces):
            if sample >= pace.since:
                return pace
        return EVERY_TICK

    def is_admitted(self, sample: int) -> bool:
        return self.find_pace(sample).is_admitted(sample)

    def is_expected(self, sample: int, delay: int) -> bool:
        """Whether a camera that followed each command up to `delay` samples late took this sample.

        It is so only if all paces admit it that were in force at it or up to `delay` before it.
        """
        paces = self._list_from(sample - delay)
        return all(pace.is_admitted(sample) for pace in paces if pace.since <= sample)

    def find_next(self, sample: int) -> int:
        """The first admitted sample that is not before this one."""
        newest = self.paces[-1]
        if sample >= newest.since:  # the usual case: every wait asks
            return newest.find_next(sample)
        for pace in self._list_from(sample):
            sample = max(sample, pace.since)
            found = pace.find_next(sample)
            if self.find_pace(found) == pace:
                return found
        return self.newest.find_next(sample)

    def find_last(self, sample: int) -> int:
        """The last admitted sample that is not after this one."""
        for pace in reversed(self.paces):
            if sample >= pace.since:
                found = pace.find_last(sample)
                if found >= pace.since:
                    return found
                sample = pace.since - 1
        return sample

    def count_shed(self, first: int, end: int) -> int:
        """The number of samples from `first` up to but not including `end` that are shed."""
        pace = self.find_pace(first)
        later = [p.since for p in self.paces if first < p.since < end]
        shed = 0
        for bound in (*later, end):
            shed += bound - first - pace.count_admitted(first, bound)
            first, pace = bound, self.find_pace(bound)
        return shed

    def _list_from(self, sample: int) -> Iterable[Pace]:
        """The pace in force at this sample, and later ones."""
        return (self.find_pace(sample), *(pace for pace in self.paces if pace.since > sample))
