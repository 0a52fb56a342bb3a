"""How sure a measured share is, and which classes are confused."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
CONFIDENCE = 0.95


def compute_wilson_interval(
    correct: float, known: float, confidence: float = CONFIDENCE
) -> Interval:
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


def count_confusions(
    answers: NDArray[np.int32], labels: NDArray[np.int32], classes: int
) -> NDArray[np.int64]:
    """Samples by true class (rows) and answer (columns): int64 [classes, classes]."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, answers), 1)
    return table
