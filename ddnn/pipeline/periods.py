"""How long to wait and how often to replicate, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from ddnn.errors import ConfigError

DEVIATIONS = 6.0  # median absolute deviations above the median
FACTOR = 2.0  # of the median, at least: a steady pipeline has hardly any deviation
FIRST_S = 30.0  # before anything was measured
SAMPLES = 64  # of the latest durations
MAX_SHARE = 0.05  # of a link's bandwidth and of the time: what replication may take
FAILURES_PER_S = 1 / 3600  # of each node, until failures were counted
PERIOD_RANGE = (10, 50)  # batches; a copy that is older costs accuracy, too


def choose_timeout_s(
    durations_s: Sequence[float],
    deviations: float = DEVIATIONS,
    least_s: float = 0.0,
    first_s: float = FIRST_S,
) -> float:
    """How long to wait for the next batch: the median and k median absolute deviations.

    At least twice the median and `least_s`; `first_s` where nothing was measured yet.
    """
    latest = list(durations_s)[-SAMPLES:]
    if not latest:
        return max(first_s, least_s)
    middle_s = median(latest)
    deviation_s = median([abs(duration - middle_s) for duration in latest])
    return max(middle_s + deviations * deviation_s, FACTOR * middle_s, least_s)


def choose_period(
    state_bytes: float,
    bandwidth_bytes_per_s: float,
    batch_s: float,
    failures_per_s: float,
    least: int = PERIOD_RANGE[0],
    most: int = PERIOD_RANGE[1],
) -> int:
    """The number of batches between two replications of `state_bytes`.

    A replication every k batches costs the link c = bytes / bandwidth seconds per k batches of
    t seconds; a failure, at a rate of f per second, loses k t / 2 seconds of training on average.
    The sum of both shares, c / (k t) + f k t / 2, is smallest at k t = sqrt(2 c / f) (Young 1974).
    That leaves out that updates of the lost layers are missing afterwards, beside layers that have
    them: the period is at most `most`. Replication takes at most MAX_SHARE of the link's time,
    whatever the failure rate and `most`.
    """
    if batch_s <= 0 or bandwidth_bytes_per_s <= 0 or state_bytes < 0 or failures_per_s < 0:
        raise ConfigError(
            f"{state_bytes} bytes at {bandwidth_bytes_per_s} bytes/s, {batch_s} s per batch, "
            f"{failures_per_s} failures/s: expected positive numbers"
        )
    copy_s = state_bytes / bandwidth_bytes_per_s
    best_s = math.sqrt(2 * copy_s / failures_per_s) if failures_per_s else math.inf
    period_s = max(min(best_s, most * batch_s), copy_s / MAX_SHARE)
    return max(least, math.ceil(period_s / batch_s))
