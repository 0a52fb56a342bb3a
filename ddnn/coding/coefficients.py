"""Coefficients on given supports: drawn at random, the best of several draws kept.

The protocol of the authors of Das et al., IoT-J 2024: of every draw the worst condition number
over all straggler sets; the draw with the smallest worst one stays. Their N(0,1) coefficients come
close to zero, which thin windows do not bear (derived here: at n = 30, s = 2 a thousand times
worse), so the default family keeps magnitudes in [0.5, 1.5].

Cyclic windows with independent coefficients are badly conditioned for many blocks, however they
are drawn: where a window is lost, the system carries values along the chain of the others, and
magnifies them a little at each (10^26 at n = 1,000, s = 4). `draw_windows` therefore gives all
windows the coefficients of one polynomial with its roots on the unit circle: its recurrence
neither magnifies nor damps, and the condition grows with a power of k only (derived here).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb, inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddnn.coding import patterns
from ddnn.coding.conditioning import DENSE_LIMIT, conditions
from ddnn.coding.supports import Supports
from ddnn.errors import ConfigError

Family = Literal["bounded", "normal"]
Factors = tuple[NDArray[np.float64], ...]

SEARCH_LIMIT = 20_000  # straggler sets tried per draw; where there are more: a sample
SEARCH_SAMPLES = 8, 500  # random sets, and as many adversarial ones: fewer, the larger the code
SEARCH_NUMBERS = 2**25  # k^3 times the random sets


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


def draw_windows(supports: Supports, k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Coefficients for k cyclic windows of one length, then further blocks on any supports.

    The sign turns where a window passes the end, so that the root 1 of odd polynomials is no
    eigenvalue of the whole cycle. The coefficients are no longer independent: whether the code
    decodes is for the certificate to say.
    """
    generator = draw(supports, k, "bounded", rng)
    polynomial = _unit_circle_polynomial(len(supports[0]) - 1, rng)
    generator[:k] = 0
    for start in range(k):
        for step, coefficient in enumerate(polynomial):
            around = start + step >= k
            generator[start, (start + step) % k] = -coefficient if around else coefficient
    if len(polynomial) > 1:
        generator[k:] *= max(1.0, float(np.abs(polynomial).mean()))
    return generator


def _unit_circle_polynomial(degree: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Coefficients of random roots on the unit circle, magnitudes at least 0.5 if one is found."""
    best = np.zeros(degree + 1)
    for _ in range(64):
        polynomial = np.array([1.0, -1.0] if degree % 2 else [1.0])
        for angle in rng.uniform(0, np.pi, degree // 2):
            polynomial = np.convolve(polynomial, [1.0, -2 * np.cos(angle), 1.0])
        if np.abs(polynomial).min() > np.abs(best).min():
            best = polynomial
        if np.abs(best).min() >= 0.5:
            break
    return best


def kron_rows(factors: Factors) -> NDArray[np.float64]:
    """Row i is the Kronecker product of the factors' rows i."""
    product = factors[0]
    for factor in factors[1:]:
        product = np.einsum("ip,iq->ipq", product, factor).reshape(len(factor), -1)
    return product


def search(
    drawn: Callable[[int, np.random.Generator], Factors], s: int, seed: int, trials: int
) -> Factors:
    """The best of the draws 0 … `trials` - 1, each with a generator of its own.

    Draw t depends on (seed, t) only and all are measured on the same straggler sets, so more
    trials are never worse. A draw is dropped as soon as it is worse than the best.
    """
    if trials < 1 or seed < 0:
        raise ConfigError(f"trials={trials}, seed={seed}: trials >= 1 and seed >= 0 are needed")
    best, best_worst = drawn(0, np.random.default_rng([seed, 0])), inf
    if trials == 1:
        return best
    gone = _patterns(kron_rows(best) != 0, s, seed)
    for trial in range(trials):
        factors, worst = drawn(trial, np.random.default_rng([seed, trial])), 0.0
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
    least, most = SEARCH_SAMPLES
    samples = min(most, max(least, SEARCH_NUMBERS // k**3))
    return patterns.sampled(holds, s, samples, np.random.default_rng(seed))
