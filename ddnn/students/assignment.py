"""Which group gets which part: by the maximum of the latencies, or by their sum."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ddnn.students.types import FloatArray, IntArray


def assign_by_bottleneck(costs: FloatArray) -> IntArray:
    """The column of each row of costs [n, n] with the least maximum; of these, the least sum.

    By bisection over the costs: a bound holds where the costs up to it have a perfect matching.
    """
    values = np.unique(costs[np.isfinite(costs)])
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        matching = maximum_bipartite_matching(csr_array(costs <= values[middle]))
        low, high = (low, middle) if (matching >= 0).all() else (middle + 1, high)
    return assign_by_sum(np.where(costs <= values[low], costs, np.inf))


def assign_by_sum(costs: FloatArray) -> IntArray:
    """The column of each row of costs [n, n] with the least sum (Kuhn-Munkres)."""
    return np.asarray(linear_sum_assignment(costs)[1])
