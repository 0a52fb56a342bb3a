"""Constructions of codes.

`make_parity`, `make_mds`, `make_low_weight` and `make_low_weight_product` are for use;
`make_uncoded`, `make_replication`, `make_polynomial` and `make_dense_gaussian` for comparison.
`search_code` and `search_product_code` draw the coefficients of codes on given supports.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddnn.coding.certification import find_failing_sets
from ddnn.coding.code import Code, check_size
from ddnn.coding.coefficients import (
    Factors,
    Family,
    compute_kron_rows,
    draw_coefficients,
    draw_window_coefficients,
    search_coefficients,
)
from ddnn.coding.conditioning import DENSE_LIMIT
from ddnn.coding.supports import (
    assign_low_weight,
    assign_product_greedy,
    assign_product_tiles,
    count_workers_per_unknown,
    list_product_weights,
)
from ddnn.errors import ConfigError, InfeasiblePlanError

TRIALS = 20
# Trials of low-weight codes beyond DENSE_LIMIT blocks: the maximum, and of trials times workers.
LARGE_TRIALS = 100, 60_000


def make_uncoded(n: int) -> Code:
    """One block per worker; all workers must answer."""
    check_size(n, n, 0)
    return Code(np.eye(n), 0, "uncoded")


def make_parity(n: int) -> Code:
    """n - 1 uncoded blocks and their sum (Hadidi et al., EDGE 2023)."""
    check_size(n, n - 1, 1)
    return Code(np.vstack([np.eye(n - 1), np.ones(n - 1)]), 1, "parity")


def make_replication(n: int, s: int) -> Code:
    """n // (s + 1) blocks, each on s + 1 workers or more."""
    k = n // (s + 1) if s >= 0 else 0
    check_size(n, k, s)
    return Code(np.eye(k)[np.arange(n) % k], s, "replication")


def make_mds(n: int, s: int, seed: int = 0, trials: int = TRIALS) -> Code:
    """n - s uncoded blocks and s parities that together recover every loss of s workers.

    The overlapping parities of Hadidi et al., EDGE 2023, Fig. 15 recover 8 of 10 double losses;
    searched coefficients over all blocks recover 10 of 10.
    """
    k = n - s
    check_size(n, k, s)
    systematic = [(block,) for block in range(k)] + [tuple(range(k))] * s
    return search_code(systematic, k, s, seed, trials, "mds")


def make_systematic(n: int, s: int, seed: int = 0) -> Code:
    """n - s uncoded blocks and s parities: none, the sum of the blocks, or those of `make_mds`."""
    if s == 0:
        return make_uncoded(n)
    return make_parity(n) if s == 1 else make_mds(n, s, seed)


def make_low_weight(n: int, s: int, seed: int = 0, trials: int | None = None) -> Code:
    """The least weight for A^T x (Das et al., IoT-J 2024): ceil((n - s)(s + 1) / n).

    The search alternates between one polynomial for all windows and independent coefficients; where
    some loss is not tolerated with the former, the search is over the latter only. trials: at least
    one of each kind; by default 20, and beyond 128 blocks up to 100, where the search gains most.

    Float32 answers need a condition number below 8e6 (see `Code.decode`). With s near 10 and
    hundreds of workers it may be larger: check it with `certify`, and use more trials or float64.
    """
    k, name = n - s, "low_weight"
    check_size(n, k, s)
    if trials is None:
        limit, numbers = LARGE_TRIALS
        trials = max(TRIALS, min(limit, numbers // n)) if k > DENSE_LIMIT else TRIALS
    trials = 2 if trials == 1 else trials
    windows = assign_low_weight(n, s)

    def draw_trial(trial: int, rng: np.random.Generator) -> Factors:
        if trial % 2:
            return (draw_coefficients(windows, k, "bounded", rng),)
        return (draw_window_coefficients(windows, k, rng),)

    code = Code(search_coefficients(draw_trial, s, seed, trials)[0], s, name)
    if find_failing_sets(code)[1].size:
        return search_code(windows, k, s, seed, trials, name)
    return code


def make_low_weight_product(
    k_a: int, k_b: int, s: int, seed: int = 0, trials: int = TRIALS
) -> Code:
    """The smallest weights (w_a, w_b) for A^T B whose code tolerates every loss that is tried.

    After Das et al., IoT-J 2024; the bounds and the placement are derived here. Where the lower
    bound on w_a * w_b is not attainable, the next product is tried. Raises InfeasiblePlanError
    where no weights tolerate s losses.
    """
    if k_a < 1 or k_b < 1:
        raise ConfigError(f"{k_a} x {k_b} blocks: at least one of each is needed")
    check_size(k_a * k_b + s, k_a * k_b, s)
    for weights in list_product_weights(k_a, k_b, s):
        for assign in (assign_product_tiles, assign_product_greedy):
            pair = assign(k_a, k_b, s, weights)
            if count_workers_per_unknown(*pair, k_a, k_b).min() <= s:
                continue
            if find_failing_sets(search_product_code(*pair, k_a, k_b, s, seed, 1))[1].size:
                continue
            name = "low_weight_product"
            return search_product_code(*pair, k_a, k_b, s, seed, trials, name)
    raise InfeasiblePlanError(
        f"no product code for {k_a} x {k_b} blocks tolerates {s} losses; use a smaller s or more "
        "blocks"
    )


def make_polynomial(n: int, s: int) -> Code:
    """Monomials at equispaced nodes -1 + 2 (i + 1) / n: badly conditioned."""
    check_size(n, n - s, s)
    nodes = -1 + 2 * np.arange(1, n + 1) / n
    return Code(np.vander(nodes, n - s, increasing=True), s, "polynomial")


def make_dense_gaussian(n: int, s: int, seed: int = 0, trials: int = TRIALS) -> Code:
    """N(0, 1) coefficients over all blocks for every worker."""
    check_size(n, n - s, s)
    full = [tuple(range(n - s))] * n
    return search_code(full, n - s, s, seed, trials, "dense_gaussian", "normal")


def search_code(
    supports: Sequence[Sequence[int]],
    k: int,
    s: int,
    seed: int = 0,
    trials: int = TRIALS,
    name: str = "custom",
    family: Family = "bounded",
) -> Code:
    """The best of `trials` draws on given supports, whether or not it tolerates s losses.

    supports: the blocks that each worker combines.
    """
    check_size(len(supports), k, s)
    _check_supports(supports, k)

    def draw_trial(_: int, rng: np.random.Generator) -> Factors:
        return (draw_coefficients(supports, k, family, rng),)

    return Code(search_coefficients(draw_trial, s, seed, trials)[0], s, name)


def search_product_code(
    supports_a: Sequence[Sequence[int]],
    supports_b: Sequence[Sequence[int]],
    k_a: int,
    k_b: int,
    s: int,
    seed: int = 0,
    trials: int = TRIALS,
    name: str = "custom",
) -> Code:
    """As `search_code`, for the products A^T B."""
    check_size(len(supports_a), k_a * k_b, s)
    _check_supports(supports_a, k_a)
    _check_supports(supports_b, k_b)
    if len(supports_a) != len(supports_b):
        raise ConfigError(
            f"supports of {len(supports_a)} workers for A and of {len(supports_b)} for B: "
            "expected the same number"
        )

    def draw_trial(_: int, rng: np.random.Generator) -> Factors:
        return (
            draw_coefficients(supports_a, k_a, "bounded", rng),
            draw_coefficients(supports_b, k_b, "bounded", rng),
        )

    factors = search_coefficients(draw_trial, s, seed, trials)
    return Code(compute_kron_rows(factors), s, name, factors)


def _check_supports(supports: Sequence[Sequence[int]], k: int) -> None:
    for worker, support in enumerate(supports):
        if any(not 0 <= block < k for block in support):
            raise ConfigError(
                f"worker {worker} combines blocks {tuple(support)}: expected blocks 0 … {k - 1}"
            )
