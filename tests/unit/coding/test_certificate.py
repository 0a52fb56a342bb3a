"""Certificates: exact ranks, condition numbers, the search for coefficients, large codes."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.coding import (
    Code,
    certify,
    make_dense_gaussian,
    make_low_weight,
    make_mds,
    make_polynomial,
    make_replication,
    patterns,
    search_code,
    supports,
)
from ddnn.coding.coefficients import draw_coefficients, draw_window_coefficients
from ddnn.coding.conditioning import compute_condition, compute_conditions
from ddnn.coding.field import (
    PRIMES,
    ExactRank,
    compute_residues,
    have_full_column_rank,
    reduce_rows,
)
from ddnn.errors import ConfigError, NotDecodableError

FLOATS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)


@given(st.lists(FLOATS, min_size=1, max_size=8))
def test_floats_map_exactly_to_residues(values: list[float]) -> None:
    for prime in PRIMES:
        expected = [
            Fraction(v).numerator * pow(Fraction(v).denominator, -1, prime) % prime for v in values
        ]
        assert compute_residues(np.array(values), prime).tolist() == expected


def test_the_moduli_are_prime() -> None:
    for prime in PRIMES:
        assert all(prime % d for d in range(2, int(prime**0.5) + 1))
        assert prime < 2**31


def compute_exact_rank(rows: list[list[int]]) -> int:
    """The rank, by elimination with fractions."""
    left = [[Fraction(value) for value in row] for row in rows]
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((r for r in range(rank, len(left)) if left[r][column]), None)
        if pivot is None:
            continue
        left[rank], left[pivot] = left[pivot], left[rank]
        for r in range(rank + 1, len(left)):
            factor = left[r][column] / left[rank][column]
            left[r] = [a - factor * b for a, b in zip(left[r], left[rank], strict=True)]
        rank += 1
    return rank


@given(st.data())
def test_ranks_equal_those_over_the_rationals(data: st.DataObject) -> None:
    n, k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    row = st.lists(st.integers(-2, 2), min_size=k, max_size=k)
    rows = data.draw(st.lists(row, min_size=n, max_size=n))
    matrix = np.array(rows, np.float64)
    alive = np.array([[m >> i & 1 for i in range(n)] for m in range(2**n)], bool)
    found = ExactRank(matrix).find_full_rank(alive)
    for mask, full in zip(alive, found, strict=True):
        selected = [r for r, present in zip(rows, mask, strict=True) if present]
        assert full == (bool(selected) and compute_exact_rank(selected) == k)
    for prime in PRIMES:
        field = compute_residues(matrix, prime)
        assert len(reduce_rows(field.T, prime)[1]) == compute_exact_rank(rows)
        assert have_full_column_rank(field[None], prime)[0] == (compute_exact_rank(rows) == k)


def test_a_nearly_singular_generator_is_decodable_by_exact_rank() -> None:
    """One unit in the last place makes the rank full; floating point cannot represent it."""
    almost = np.nextafter(1.0, 2.0)
    assert certify(Code([[1, 1], [1, almost]], 0)).decodable
    assert not certify(Code([[1, 1], [1, 1]], 0)).decodable
    with pytest.raises(NotDecodableError, match="no digit"):
        Code([[1, 1], [1, almost]], 0).decode({0: np.ones(2), 1: np.ones(2)})


def test_a_minor_that_the_first_prime_divides_does_not_count_as_zero() -> None:
    assert certify(Code([[1, 0], [0, float(PRIMES[0])]], 0)).decodable
    assert certify(Code([[1, 0], [0, 1], [1, float(PRIMES[0])]], 1)).decodable


@pytest.mark.parametrize("code", [make_mds(9, 3), make_replication(7, 2), make_low_weight(10, 3)])
def test_the_worst_condition_is_that_over_all_sets(code: Code) -> None:
    worst = {
        stragglers: np.linalg.cond(code.generator[sorted(set(range(code.n)) - set(stragglers))])
        for stragglers in combinations(range(code.n), code.s)
    }
    certificate = certify(code)
    assert certificate.exhaustive
    assert certificate.seed is None
    assert certificate.checked == len(worst) == comb(code.n, code.s)
    assert certificate.worst_condition == pytest.approx(max(worst.values()), rel=1e-6)
    assert worst[certificate.worst_set] == pytest.approx(max(worst.values()), rel=1e-6)


def test_a_sampled_certificate_records_the_number_of_sets_and_the_seed() -> None:
    code = make_mds(20, 4, trials=2)
    certificate = certify(code, exhaustive_limit=100, samples=300, seed=7)
    assert not certificate.exhaustive
    assert certificate.seed == 7
    assert 300 < certificate.checked <= 380  # 300 random, 80 adversarial, without duplicates
    assert certificate == certify(code, exhaustive_limit=100, samples=300, seed=7)
    assert certificate.worst_condition <= certify(code).worst_condition


def test_a_sample_contains_the_adversarial_set_that_fails() -> None:
    """One of 635,376 losses fails, and is found: all workers of an unknown lost except one."""
    generator = make_mds(64, 4, trials=1).generator.copy()
    generator[60, 30] = 0
    lost = {30, 61, 62, 63}  # parity 60 remains, but does not contain block 30
    code = Code(generator, 4)
    certificate = certify(code, samples=20)
    assert not certificate.decodable
    assert set(certificate.worst_set) == lost
    assert not code.is_decodable(set(range(64)) - lost)
    rng = np.random.default_rng(0)
    by_chance = [set(rng.choice(64, 4, replace=False).tolist()) for _ in range(500)]
    assert all(code.is_decodable(set(range(64)) - stragglers) for stragglers in by_chance)


@pytest.mark.parametrize("s", [1, 2, 4])
def test_adversarial_sets_spare_one_worker_of_an_unknown(s: int) -> None:
    combines = make_low_weight(12, s, trials=1).generator != 0
    stragglers = patterns.sample_patterns(combines, s, 200, np.random.default_rng(0))
    assert len(np.unique(stragglers, axis=0)) == len(stragglers)
    lost = {tuple(row) for row in stragglers.tolist()}
    for unknown in range(12 - s):
        workers = np.flatnonzero(combines[:, unknown]).tolist()
        if len(workers) == s + 1:
            for spared in workers:
                assert tuple(h for h in workers if h != spared) in lost


def test_more_trials_never_give_a_worse_condition() -> None:
    for maker in (make_mds, make_low_weight, make_dense_gaussian):
        worst = [certify(maker(10, 3, trials=t)).worst_condition for t in (1, 2, 5, 20, 60)]
        assert worst == sorted(worst, reverse=True)
        assert worst[-1] < worst[0]


@pytest.mark.parametrize(("n", "s"), [(6, 2), (12, 3), (30, 2), (42, 6), (40, 9)])
def test_coefficients_are_at_least_one_half(n: int, s: int) -> None:
    for code in (make_low_weight(n, s, trials=1), make_low_weight(n, s, trials=4), make_mds(n, s)):
        assert np.abs(code.generator[code.generator != 0]).min() >= 0.5


def test_gaussian_coefficients_make_low_weight_codes_badly_conditioned() -> None:
    """n = 30, s = 2, 20 draws: N(0, 1) is a thousand times worse than bounded magnitudes."""
    windows, lost = supports.assign_low_weight(30, 2), patterns.list_patterns(30, 2)
    worst: dict[str, list[float]] = {"normal": [], "bounded": []}
    for family, found in worst.items():
        for trial in range(20):
            rng = np.random.default_rng([0, trial])
            drawn = draw_coefficients(windows, 28, family, rng)  # type: ignore[arg-type]
            found.append(max(float(batch.max()) for batch in compute_conditions(drawn, lost)))
    assert 1e5 < min(worst["normal"]) < 1e8
    assert min(worst["bounded"]) < 2e4
    assert np.median(worst["normal"]) > 1e3 * np.median(worst["bounded"])
    normal = certify(search_code(windows, 28, 2, trials=20, family="normal"))
    assert normal.worst_condition == pytest.approx(min(worst["normal"]), rel=1e-6)
    # The search comes within an order of magnitude of the best dense code, at a lower weight.
    dense = min(certify(maker(30, 2)).worst_condition for maker in (make_dense_gaussian, make_mds))
    assert certify(make_low_weight(30, 2)).worst_condition <= 10 * dense
    assert certify(make_polynomial(30, 2)).worst_condition > 1e12


@pytest.mark.parametrize("s", [2, 3, 4])
def test_windows_of_one_polynomial_are_well_conditioned_for_many_blocks(s: int) -> None:
    """Independent coefficients magnify errors exponentially along the chain of windows."""
    windows, rng = supports.assign_low_weight(1000, s), np.random.default_rng(0)
    independent, together = (
        draw_coefficients(windows, 1000 - s, "bounded", rng),
        draw_window_coefficients(windows, 1000 - s, rng),
    )
    blocks = list(range(1000 - s, 1000))  # they combine the first unknowns
    spread = [200, 450, 700, 900][:s]  # far from the blocks that combine them
    for stragglers in (spread, blocks):
        left = [worker for worker in range(1000) if worker not in stragglers]
        assert compute_condition(together[left]) < 1e8
        assert stragglers is blocks or compute_condition(independent[left]) > 1e16


@pytest.mark.parametrize("make", [lambda: make_mds(1000, 10), lambda: make_low_weight(1000, 4)])
def test_a_thousand_workers(make: object) -> None:
    code = make()  # type: ignore[operator]
    certificate = certify(code, samples=20)
    assert certificate.decodable
    assert not certificate.exhaustive
    assert certificate.worst_condition < 1e8
    rng = np.random.default_rng(8)
    blocks = rng.standard_normal((code.k, 5))
    answers = dict(enumerate(code.encode(list(blocks))))
    for stragglers in [certificate.worst_set, rng.choice(1000, code.s, replace=False).tolist()]:
        left = {i: answers[i] for i in answers if i not in stragglers}
        decoded = np.array(code.decode(left))
        assert np.abs(decoded - blocks).max() <= 1e-6
        left.popitem()
        assert not code.is_decodable(left.keys())


@pytest.mark.parametrize(("n", "s"), [(70, 3), (140, 4), (200, 60), (300, 1), (150, 0)])
def test_conditions_of_systematic_codes_are_2_norms_at_all_sizes(n: int, s: int) -> None:
    code = make_mds(n, s, trials=1)
    rng = np.random.default_rng(3)
    for lost in {0, 1, s // 2, s}:  # blocks; the others are parities
        stragglers = [*rng.choice(n - s, min(lost, s), replace=False), *range(n - s + lost, n)]
        rows = np.delete(code.generator, stragglers, axis=0)
        assert compute_condition(rows) == pytest.approx(np.linalg.cond(rows), rel=1e-6)


def test_conditions_of_codes_with_more_parities_than_blocks_are_2_norms() -> None:
    code = make_mds(9, 6, trials=1)
    for left in combinations(range(9), 3):
        rows = code.generator[list(left)]
        assert compute_condition(rows) == pytest.approx(np.linalg.cond(rows), rel=1e-6)


def test_conditions_of_other_large_codes_are_1_norms() -> None:
    code = make_low_weight(140, 4, trials=2)
    rows = np.delete(code.generator, [3, 50, 138, 139], axis=0)
    direct = np.linalg.cond(rows, 1)
    assert 0.3 * direct <= compute_condition(rows) <= direct * 1.001


def test_conditions_of_large_singular_systems_are_infinite() -> None:
    twice = np.vstack([np.eye(139), np.eye(139)[:1]])[1:]
    twice[0] = twice[1]
    assert compute_condition(twice) == np.inf
    dependent = np.eye(200)
    dependent[3], dependent[4] = np.ones(200), np.ones(200)
    assert compute_condition(dependent) > 1e15
    dependent[4] = 0
    assert compute_condition(dependent) == np.inf


def test_a_large_certificate_records_the_number_of_conditions() -> None:
    """All where they are fast, a part where each needs a factorization."""
    small, systematic = make_mds(12, 3), make_mds(300, 3, trials=1)
    for code in (small, systematic):
        certificate = certify(code, samples=100)
        assert certificate.conditions_checked == certificate.checked
    code = make_low_weight(300, 3, trials=2)
    certificate = certify(code, samples=100)
    assert certificate.checked > 150
    assert certificate.conditions_checked == 25
    rows = np.delete(code.generator, certificate.worst_set, axis=0)
    assert certificate.worst_condition == pytest.approx(compute_condition(rows))
    failing = Code(np.vstack([np.eye(3), np.ones((1, 3))]), 1).generator * [1, 1, 0]
    assert certify(Code(failing, 1)).conditions_checked == 0


def test_one_trial_of_low_weight_tries_both_kinds_of_coefficients() -> None:
    """Nine workers: with the windows of one polynomial alone it is 70 times worse."""
    windows = supports.assign_low_weight(9, 3)
    alone = certify(Code(draw_window_coefficients(windows, 6, np.random.default_rng([0, 0])), 3))
    found = certify(make_low_weight(9, 3, trials=1))
    assert found.worst_condition < 0.1 * alone.worst_condition
    with pytest.raises(ConfigError, match="trials"):
        make_low_weight(9, 3, trials=0)


def test_many_workers_and_losses_get_more_trials() -> None:
    """s = 10 of n = 300: float32 needs a condition below 8e6, which 20 trials do not reach."""
    least = certify(make_low_weight(300, 10, trials=20), samples=200).worst_condition
    found = certify(make_low_weight(300, 10), samples=200).worst_condition
    assert found < 8e6 < least


def test_at_least_one_sample_is_required() -> None:
    with pytest.raises(ConfigError, match="samples"):
        certify(make_mds(20, 4, trials=1), exhaustive_limit=1, samples=0)
