"""Percentiles from counts."""

from __future__ import annotations

from collections.abc import Sequence


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
