"""Coefficients on given supports: drawn at random, the best of several draws kept.

The protocol of the authors of Das et al., IoT-J 2024: of every draw the worst condition number
over all straggler sets; the draw with the smallest worst one stays. Their N(0,1) coefficients come
close to zero, which thin windows do not bear (derived here: at n = 30, s = 2 a thousand times
worse), so the default family keeps magnitudes in [0.5, 1.5].
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddnn.coding import patterns
from ddnn.coding.conditioning import DENSE_LIMIT, conditions
from ddnn.errors import ConfigError

Family = Literal["bounded", "normal"]
Factors = tuple[NDArray[np.float64], ...]

SEARCH_LIMIT = 5_000  # straggler sets tried per draw; where there are more: a sample
SEARCH_SAMPLES = 500
SEARCH_SAMPLES_LARGE = 8  # for codes beyond the dense limit, twice (random and adversarial)


def draw(
    supports: Sequence[Sequence[int]], k: int, family: Family, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Coefficients [n, k] on the supports; a worker with one block gets it bare."""
    shape = len(supports), k
    if family == "bounded":
        values = rng.choice((-1.0, 1.0), shape) * rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape)
    generator = np.zeros(shape)
    for worker, support in enumerate(supports):
        blocks = list(support)
        generator[worker, blocks] = values[worker, blocks] if len(blocks) > 1 else 1.0
    return generator


def kron_rows(factors: Factors) -> NDArray[np.float64]:
    """Row i is the Kronecker product of the factors' rows i."""
    product = factors[0]
    for factor in factors[1:]:
        product = np.einsum("ip,iq->ipq", product, factor).reshape(len(factor), -1)
    return product


def search(
    supports: Sequence[Sequence[Sequence[int]]],
    sizes: Sequence[int],
    s: int,
    seed: int,
    trials: int,
    family: Family = "bounded",
) -> Factors:
    """The best of `trials` draws for one set of supports per factor.

    Draw t depends on (seed, t) only and all are measured on the same straggler sets, so more
    trials are never worse. A draw is dropped as soon as it is worse than the best.
    """
    if trials < 1 or seed < 0:
        raise ConfigError(f"trials={trials}, seed={seed}: trials >= 1 and seed >= 0 are needed")

    def drawn(trial: int) -> Factors:
        rng = np.random.default_rng([seed, trial])
        pairs = zip(supports, sizes, strict=True)
        return tuple(draw(support, size, family, rng) for support, size in pairs)

    best, best_worst = drawn(0), inf
    if trials == 1:
        return best
    gone = _patterns(kron_rows(best) != 0, s, seed)
    for trial in range(trials):
        factors, worst = drawn(trial), 0.0
        for some in conditions(kron_rows(factors), gone):
            worst = max(worst, float(some.max()))
            if worst >= best_worst:
                break
        else:
            best, best_worst = factors, worst
    return best


def _patterns(holds: NDArray[np.bool_], s: int, seed: int) -> patterns.Patterns:
    n, k = holds.shape
    if comb(n, s) <= SEARCH_LIMIT and k <= DENSE_LIMIT:
        return patterns.exhaustive(n, s)
    samples = SEARCH_SAMPLES if k <= DENSE_LIMIT else SEARCH_SAMPLES_LARGE
    return patterns.sampled(holds, s, samples, np.random.default_rng(seed))
