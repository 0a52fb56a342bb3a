"""Coefficients on given supports: the best of several random draws.

The procedure of Das et al., IoT-J 2024: compute for every draw the worst condition number over all
straggler sets, and keep the draw where it is smallest. Their N(0, 1) coefficients come close to
zero, which makes codes of low weight badly conditioned (derived here: a thousand times worse at
n = 30, s = 2), so the default family draws magnitudes from [0.5, 1.5].

Cyclic windows with independent coefficients are badly conditioned for many blocks, whatever their
distribution: where a window is lost, the system propagates values along the chain of the others and
magnifies them a little at each (10^26 at n = 1,000, s = 4). `draw_window_coefficients` therefore
gives all windows the coefficients of one polynomial with its roots on the unit circle: its
recurrence neither magnifies nor damps, and the condition grows only with a power of k (derived
here).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb, inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddnn.coding import patterns
from ddnn.coding.conditioning import DENSE_LIMIT, compute_conditions
from ddnn.coding.supports import Supports
from ddnn.errors import ConfigError

Family = Literal["bounded", "normal"]
Factors = tuple[NDArray[np.float64], ...]

SEARCH_LIMIT = 20_000  # straggler sets tried per draw; where there are more, a sample is tried
SEARCH_SAMPLES = 8, 500  # random sets, least and most, and as many adversarial ones
SEARCH_NUMBERS = 2**25  # k^3 times the random sets: the larger the code, the fewer


def draw_coefficients(
    supports: Sequence[Sequence[int]], k: int, family: Family, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Coefficients [n, k] on the supports; a worker with one block gets it uncoded."""
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


def draw_window_coefficients(
    supports: Supports, k: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Coefficients [n, k] for k cyclic windows of one length, then further blocks on any supports.

    The sign changes where a window passes the end, so that the root 1 of odd polynomials is not an
    eigenvalue of the whole cycle. The coefficients are not independent, so the code may fail to
    decode: it must be certified.
    """
    generator = draw_coefficients(supports, k, "bounded", rng)
    polynomial = _draw_unit_circle_polynomial(len(supports[0]) - 1, rng)
    generator[:k] = 0
    for start in range(k):
        for step, coefficient in enumerate(polynomial):
            wraps = start + step >= k
            generator[start, (start + step) % k] = -coefficient if wraps else coefficient
    if len(polynomial) > 1:
        generator[k:] *= max(1.0, float(np.abs(polynomial).mean()))
    return generator


def _draw_unit_circle_polynomial(degree: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A polynomial [degree + 1] with random roots on the unit circle.

    The magnitudes of its coefficients are at least 0.5, if such a one is found in 64 draws.
    """
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


def compute_kron_rows(factors: Factors) -> NDArray[np.float64]:
    """The matrix whose row i is the Kronecker product of the factors' rows i."""
    product = factors[0]
    for factor in factors[1:]:
        product = np.einsum("ip,iq->ipq", product, factor).reshape(len(factor), -1)
    return product


def search_coefficients(
    draw_trial: Callable[[int, np.random.Generator], Factors], s: int, seed: int, trials: int
) -> Factors:
    """The best of the draws 0 … `trials` - 1, each with a random generator of its own.

    Draw t depends only on (seed, t), and all are measured on the same straggler sets, so more
    trials never give a worse result. A draw is rejected as soon as it is worse than the best.
    """
    if trials < 1 or seed < 0:
        raise ConfigError(f"trials={trials}, seed={seed}: trials >= 1 and seed >= 0 are needed")
    best, best_worst = draw_trial(0, np.random.default_rng([seed, 0])), inf
    if trials == 1:
        return best
    stragglers = _choose_patterns(compute_kron_rows(best) != 0, s, seed)
    for trial in range(trials):
        factors, worst = draw_trial(trial, np.random.default_rng([seed, trial])), 0.0
        for batch in compute_conditions(compute_kron_rows(factors), stragglers):
            worst = max(worst, float(batch.max()))
            if worst >= best_worst:
                break
        else:
            best, best_worst = factors, worst
    return best


def _choose_patterns(combines: NDArray[np.bool_], s: int, seed: int) -> patterns.Patterns:
    n, k = combines.shape
    if comb(n, s) <= SEARCH_LIMIT and k <= DENSE_LIMIT:
        return patterns.list_patterns(n, s)
    least, most = SEARCH_SAMPLES
    samples = min(most, max(least, SEARCH_NUMBERS // k**3))
    return patterns.sample_patterns(combines, s, samples, np.random.default_rng(seed))
