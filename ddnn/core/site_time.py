"""Site time and sample ids: which instant a sample shows, for all cameras of a site.

The id of a sample is the number of whole periods since 1970 by site time, its tick. Site time is
the lead edge's wall clock, which may be set back, and then ticks come again. An epoch counts how
often that happened, so that no id comes twice: id = epoch * 2^42 + tick.
"""

from __future__ import annotations

from typing import NamedTuple

from ddnn.core.ids import tick_of

SET_BACK_S = 1.0  # a larger step back of the clock begins an epoch; ticks wait for a smaller one
EPOCH_TICKS = 2**42  # at 1000 samples/s until the year 2109
MAX_EPOCH = 2**11 - 1  # ids stay below 2^53, which JSON readers hold exactly
MAX_TIME_S = 2.0**32  # year 2106


class SiteTime(NamedTuple):
    """A moment of site time. Within an epoch time does not go back by more than SET_BACK_S."""

    epoch: int
    time_s: float  # since 1970


def make_sample_id(epoch: int, tick: int) -> int:
    """The id of the sample of a tick."""
    return epoch * EPOCH_TICKS + tick


def find_sample_id(time: SiteTime, period_s: float) -> int:
    """The id of the newest sample at this time."""
    return make_sample_id(time.epoch, tick_of(time.time_s, period_s))


def find_tick(sample: int) -> int:
    """The tick of a sample within its epoch."""
    return sample % EPOCH_TICKS


def find_epoch(sample: int) -> int:
    """The epoch of a sample."""
    return sample // EPOCH_TICKS
