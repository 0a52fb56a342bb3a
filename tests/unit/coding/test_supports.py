"""Bounds and assignments: the figures of the papers and of the theorem derived from them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.coding import (
    Code,
    certify,
    compute_lower_bound,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    search_code,
    search_product_code,
    supports,
)
from ddnn.errors import ConfigError

SMALL = [(n, s) for n in range(2, 13) for s in range(min(n, 5))]
PAIRS = [(k, s) for k in range(2, 17) for s in range(1, k + 1)]


@pytest.mark.parametrize(
    ("n", "s", "weight"),
    [
        (5, 1, 2),
        (12, 2, 3),
        (12, 3, 3),
        (18, 3, 4),
        (20, 4, 4),
        (24, 4, 5),
        (30, 2, 3),
        (30, 3, 4),
        (42, 6, 6),
    ],
)
def test_low_weight_codes_reach_the_lower_bound(n: int, s: int, weight: int) -> None:
    assert compute_lower_bound(n, s) == weight
    assert make_low_weight(n, s, trials=1).weights == (weight,)


@pytest.mark.parametrize(("n", "s"), SMALL)
def test_every_worker_of_a_low_weight_code_has_the_weight_of_the_bound(n: int, s: int) -> None:
    assert {len(support) for support in make_low_weight(n, s, trials=2).supports} == {
        compute_lower_bound(n, s)
    }


@pytest.mark.parametrize(("n", "s"), [pair for pair in SMALL if compute_lower_bound(*pair) > 1])
def test_one_below_the_bound_fails(n: int, s: int) -> None:
    assigned = supports.assign_low_weight(n, s, compute_lower_bound(n, s) - 1)
    certificate = certify(search_code(assigned, n - s, s, trials=1))
    assert not certificate.decodable
    assert certificate.failing > 0
    assert certificate.worst_condition == np.inf
    left = sorted(set(range(n)) - set(certificate.worst_set))
    code = search_code(assigned, n - s, s, trials=1)
    assert len(certificate.worst_set) == s
    assert np.linalg.matrix_rank(code.generator[left]) < n - s


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_assignment_below_the_bound_fails(data: st.DataObject) -> None:
    n, s = data.draw(st.sampled_from([pair for pair in SMALL if compute_lower_bound(*pair) > 1]))
    size = compute_lower_bound(n, s) - 1
    choices = st.lists(st.integers(0, n - s - 1), min_size=size, max_size=size, unique=True)
    assigned = data.draw(st.lists(choices, min_size=n, max_size=n))
    assert not certify(search_code(assigned, n - s, s, trials=1)).decodable


def test_low_weight_supports_satisfy_the_theorem() -> None:
    """Hall's condition over all sets of unknowns, in 135 cases and those with s above k."""
    assert len(PAIRS) == 135
    beyond = [(k, s) for k in range(1, 11) for s in range(k + 1, 2 * k + 2)]
    for k, s in PAIRS + beyond:
        assigned = supports.assign_low_weight(k + s, s)
        assert supports.compute_generic_tolerance(assigned, k) >= s, (k, s)


def test_purely_cyclic_supports_fail_in_61_of_135_cases() -> None:
    failing = [
        (k, s)
        for k, s in PAIRS
        if supports.compute_generic_tolerance(supports.assign_cyclic(k + s, s), k) < s
    ]
    assert len(failing) == 61
    assert min(failing, key=sum) == (4, 2)
    round_robin = [
        tuple(supports.list_window(i * w, w, k) for i in range(k + s))
        for k, s in PAIRS
        for w in [compute_lower_bound(k + s, s)]
    ]
    tolerated = [
        supports.compute_generic_tolerance(assigned, k) >= s
        for assigned, (k, s) in zip(round_robin, PAIRS, strict=True)
    ]
    assert tolerated.count(False) == 48


def test_the_certificate_refuses_purely_cyclic_supports() -> None:
    cyclic = search_code(supports.assign_cyclic(6, 2), 4, 2)
    assert not certify(cyclic).decodable
    assert certify(make_low_weight(6, 2)).decodable


def test_halls_condition_agrees_with_the_exact_rank() -> None:
    """Matchings of the supports give the same result as ranks with drawn coefficients."""
    for n, s in SMALL:
        for weight in range(1, n - s + 1):
            assigned = supports.assign_cyclic(n, s, weight)
            code = search_code(assigned, n - s, s, trials=1)
            tolerated = supports.compute_generic_tolerance(assigned, n - s) >= s
            assert certify(code).decodable == tolerated, (n, s, weight)


@pytest.mark.parametrize(("weight", "failing"), [(3, 0), (2, 21), (1, 62)])
def test_certificates_of_twelve_workers_with_two_losses(weight: int, failing: int) -> None:
    code = search_code(supports.assign_low_weight(12, 2, weight), 10, 2)
    certificate = certify(code)
    assert (certificate.failing, certificate.checked) == (failing, 66)
    assert certificate.decodable == (failing == 0)


def test_certificate_of_purely_cyclic_supports_of_twelve_workers() -> None:
    certificate = certify(search_code(supports.assign_cyclic(12, 2, 2), 10, 2))
    assert certificate.failing == 28


def test_generic_tolerance_refuses_too_many_unknowns() -> None:
    with pytest.raises(ConfigError, match="20 is the most"):
        supports.compute_generic_tolerance(supports.assign_cyclic(30, 2), 28)


# -- several parities (Hadidi et al., EDGE 2023, Fig. 15)


def count_tolerated_sets(parities: list[list[int]]) -> int:
    code = Code(np.vstack([np.eye(3), parities]), 2)
    return sum(
        code.is_decodable(set(range(5)) - set(stragglers))
        for stragglers in combinations(range(5), 2)
    )


def test_overlapping_parities_recover_8_of_10_and_mds_10_of_10() -> None:
    assert count_tolerated_sets([[1, 1, 0], [0, 1, 1]]) == 8
    assert count_tolerated_sets([[1, 1, 1], [1, 1, 0]]) == 8
    assert count_tolerated_sets([[1, 1, 1], [1, 2, 3]]) == 10
    overlapping = certify(Code([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], 2))
    assert (overlapping.decodable, overlapping.failing, overlapping.checked) == (False, 2, 10)
    mds = certify(make_mds(5, 2))
    assert (mds.decodable, mds.failing, mds.checked) == (True, 0, 10)


# -- products A^T B


@pytest.mark.parametrize(
    ("k_a", "k_b", "s", "weights"),
    [
        (3, 5, 4, (2, 3)),
        (6, 6, 6, (2, 3)),
        (4, 5, 4, (2, 3)),
        (2, 4, 5, (2, 3)),
        (3, 3, 2, (2, 2)),
        (4, 4, 2, (2, 2)),
        (2, 2, 0, (1, 1)),
        (1, 1, 2, (1, 1)),
    ],
)
def test_product_codes_have_the_smallest_weights(
    k_a: int, k_b: int, s: int, weights: tuple[int, int]
) -> None:
    code = make_low_weight_product(k_a, k_b, s, trials=2)
    assert code.weights == weights
    assert weights[0] * weights[1] >= compute_lower_bound(code.n, s)
    certificate = certify(code)
    assert certificate.decodable
    assert certificate.exhaustive == (k_a < 6)
    assert certificate.checked > 2_000 or certificate.exhaustive
    factors = code.factors or ()
    rows = [np.kron(a, b) for a, b in zip(*factors, strict=True)]
    np.testing.assert_array_equal(code.generator, rows)


def test_enough_workers_for_every_unknown_do_not_suffice() -> None:
    """2 x 2 for (2, 4, s = 5) has 6 workers for every unknown, and fails in 56 of 1287 losses."""
    assigned = supports.assign_product_tiles(2, 4, 5, (2, 2))
    assert supports.count_workers_per_unknown(*assigned, 2, 4).min() >= 6
    certificate = certify(search_product_code(*assigned, 2, 4, 5, trials=1))
    assert (certificate.failing, certificate.checked) == (56, 1287)
    assert (2, 2) not in supports.list_product_weights(2, 4, 5)


def test_the_bound_is_not_attainable_for_3_by_5_blocks() -> None:
    assert compute_lower_bound(19, 4) == 4
    assert next(supports.list_product_weights(3, 5, 4)) == (2, 2)
    for assign in (supports.assign_product_tiles, supports.assign_product_greedy):
        assigned = assign(3, 5, 4, (2, 2))
        assert not certify(search_product_code(*assigned, 3, 5, 4, trials=1)).decodable


@pytest.mark.parametrize(("k_a", "k_b", "s"), [(2, 2, 1), (2, 3, 2), (3, 3, 1), (3, 4, 2)])
def test_weight_one_in_a_factor_always_fails(k_a: int, k_b: int, s: int) -> None:
    for weights in [(1, k_b), (k_a, 1)]:
        assert weights not in supports.list_product_weights(k_a, k_b, s)
        for assign in (supports.assign_product_tiles, supports.assign_product_greedy):
            assigned = assign(k_a, k_b, s, weights)
            assert not certify(search_product_code(*assigned, k_a, k_b, s, trials=1)).decodable


def test_small_products_reach_the_three_bounds() -> None:
    """Up to 4 x 4 blocks and 4 losses the product of the weights is the first that is allowed."""
    for k_a in range(2, 5):
        for k_b in range(2, 5):
            for s in range(1, 5):
                code = make_low_weight_product(k_a, k_b, s, trials=1)
                first = next(supports.list_product_weights(k_a, k_b, s))
                assert np.prod(code.weights) == np.prod(first), (k_a, k_b, s)
                assert certify(code).decodable
