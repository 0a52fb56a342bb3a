"""The blocks that each worker combines: bounds, the assignments that reach them, and their proof.

Das et al., IoT-J 2024: n workers, k = n - s unknowns. Every unknown must be combined by at least
s + 1 workers, so n * weight >= k (s + 1): the lower bound on the weight of the coding.

Theorem (derived here). With `assign_low_weight` every k of the n rows are nonsingular for generic
coefficients. Proof. A determinant is a nonzero polynomial exactly where workers and unknowns have a
perfect matching; over all choices of workers that is Hall's condition |N(U)| >= |U| + s for every
nonempty set U of unknowns. Of the k cyclic windows, at least min(k, |U| + w - 1) meet U. Where
that is less than k: one unknown lies in floor(s w / k) or more of the s consecutive blocks, and
w + s w / k >= s + 1 makes floor(s w / k) >= s + 1 - w; the sum is |U| + s or more. Where it is k,
every window of length w meets U, so all s blocks do: k + s >= |U| + s.

Purely cyclic supports for all n workers lack this property, first at (n, k, s) = (6, 4, 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

Supports = tuple[tuple[int, ...], ...]

MAX_UNKNOWNS = 20  # whose subsets are all tried


def compute_lower_bound(n: int, s: int) -> int:
    """The least weight of n homogeneous workers of which any s may vanish: ceil((n-s)(s+1)/n)."""
    if not 0 <= s < n:
        raise ConfigError(f"{n} workers with {s} losses: 0 <= losses < workers is needed")
    return -(-(n - s) * (s + 1) // n)


def list_window(start: int, length: int, modulus: int) -> tuple[int, ...]:
    """`length` consecutive indices from `start`, modulo `modulus`, in ascending order."""
    return tuple(sorted((start + i) % modulus for i in range(min(length, modulus))))


def assign_low_weight(n: int, s: int, weight: int | None = None) -> Supports:
    """k cyclic windows, then s consecutive blocks (Das et al., IoT-J 2024, matrix-vector)."""
    k, weight = n - s, compute_lower_bound(n, s) if weight is None else weight
    windows = [list_window(i, weight, k) for i in range(k)]
    return tuple(windows + [list_window(i * weight, weight, k) for i in range(k, n)])


def assign_cyclic(n: int, s: int, weight: int | None = None) -> Supports:
    """Cyclic windows for all n workers: for comparison, since they fail for many (n, s)."""
    weight = compute_lower_bound(n, s) if weight is None else weight
    return tuple(list_window(i, weight, n - s) for i in range(n))


def compute_generic_tolerance(supports: Sequence[Sequence[int]], k: int) -> int:
    """The number of workers that may fail with generic coefficients: min |N(U)| - |U| (Hall).

    Exact, over all 2^k sets of unknowns, so for small k. Negative where all workers together have a
    rank below k.
    """
    if k > MAX_UNKNOWNS:
        raise ConfigError(f"{k} unknowns have too many subsets to try; {MAX_UNKNOWNS} is the most")
    sets = np.arange(1, 2**k, dtype=np.uint32)
    neighbours = np.zeros(len(sets), np.int16)
    for support in supports:
        neighbours += (sets & np.uint32(sum(1 << u for u in support))) != 0
    return int((neighbours - np.bitwise_count(sets)).min())


def list_product_weights(k_a: int, k_b: int, s: int) -> Iterator[tuple[int, int]]:
    """Weights (w_a, w_b) that satisfy the three necessary conditions, the smallest products first.

    w_a w_b >= lower bound; and since block column q of B is part of k_a unknowns, k_a + s workers
    must combine it: w_b >= (k + s k_b) / n, and likewise for w_a (derived here; so weight one in a
    factor of two blocks or more never tolerates a loss).
    """
    k = k_a * k_b
    n = k + s
    least_a, least_b = -(-(k + s * k_a) // n), -(-(k + s * k_b) // n)
    pairs = [
        (a, b)
        for a in range(least_a, k_a + 1)
        for b in range(least_b, k_b + 1)
        if a * b >= compute_lower_bound(n, s)
    ]
    yield from sorted(pairs, key=lambda pair: (pair[0] * pair[1], abs(pair[0] - pair[1]), pair))


def assign_product_tiles(
    k_a: int, k_b: int, s: int, weights: tuple[int, int]
) -> tuple[Supports, Supports]:
    """k cyclic rectangles, then s that tile the grid of k_a x k_b unknowns (derived here)."""
    w_a, w_b = weights
    tiles = -(-k_a // w_a)
    cells = [(i % k_a, i // k_a) for i in range(k_a * k_b)]
    cells += [(e * w_a, e // tiles * w_b) for e in range(s)]
    return (
        tuple(list_window(a, w_a, k_a) for a, _ in cells),
        tuple(list_window(b, w_b, k_b) for _, b in cells),
    )


def assign_product_greedy(
    k_a: int, k_b: int, s: int, weights: tuple[int, int]
) -> tuple[Supports, Supports]:
    """Rectangles in turn, each on the unknowns with the fewest workers so far (derived here)."""
    w_a, w_b = weights
    places = [
        (list_window(a, w_a, k_a), list_window(b, w_b, k_b)) for b in range(k_b) for a in range(k_a)
    ]
    workers = np.zeros((k_a, k_b))  # that combine each unknown
    assigned = []
    for _ in range(k_a * k_b + s):
        need = 0.5**workers  # one worker fewer doubles the need
        best = max(places, key=lambda place: need[np.ix_(*place)].sum())
        workers[np.ix_(*best)] += 1
        assigned.append(best)
    return tuple(a for a, _ in assigned), tuple(b for _, b in assigned)


def count_workers_per_unknown(
    supports_a: Supports, supports_b: Supports, k_a: int, k_b: int
) -> NDArray[np.int64]:
    """The number of workers that combine each unknown: int [k_a, k_b]."""
    workers = np.zeros((k_a, k_b), np.int64)
    for a, b in zip(supports_a, supports_b, strict=True):
        workers[np.ix_(a, b)] += 1
    return workers
