"""Intervals and percentiles from counts."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

Interval = tuple[float, float]
CONFIDENCE = 0.95


def wilson_interval(correct: float, known: float, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a proportion (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212).

    Unlike the normal approximation it stays in [0, 1], and is right for few samples and for
    proportions near 0 and 1. For `known` = 0 it is (0, 1).
    """
    if known <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / known
    scale = 1 + z * z / known
    centre = (share + z * z / (2 * known)) / scale
    half = z * sqrt(share * (1 - share) / known + z * z / (4 * known * known)) / scale
    # The bounds at 0 and 1 are exact; rounding must not change them.
    low = 0.0 if correct <= 0 else max(0.0, centre - half)
    high = 1.0 if correct >= known else min(1.0, centre + half)
    return low, high


def quantile(bounds: Sequence[float], counts: Sequence[float], q: float) -> float | None:
    """The q-quantile of a histogram, linear within its bucket; None where all counts are 0.

    `counts` has one entry per upper bound and one more for the values above all bounds, for which
    the result is the greatest bound.
    """
    wanted = q * sum(counts)
    if wanted <= 0:
        return None
    below, low = 0.0, 0.0
    for high, count in zip(bounds, counts, strict=False):
        if below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below, low = below + count, high
    return float(bounds[-1])
