"""Every code: decoded results equal direct computation, for every set of stragglers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from ddnn import coding
from ddnn.coding import (
    Code,
    certify,
    compute_lower_bound,
    make_dense_gaussian,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    make_parity,
    make_polynomial,
    make_replication,
    make_uncoded,
    search_code,
)
from ddnn.coding.conditioning import compute_condition
from ddnn.errors import ConfigError, InconsistentAnswersError, NotDecodableError

MAKERS: dict[str, Callable[[], Code]] = {
    "uncoded": lambda: make_uncoded(5),
    "parity": lambda: make_parity(6),
    "replication": lambda: make_replication(7, 2),
    "mds": lambda: make_mds(8, 3),
    "mds without parity": lambda: make_mds(4, 0),
    "mds of one block": lambda: make_mds(3, 2),
    "low weight": lambda: make_low_weight(9, 3),
    "low weight, s=0": lambda: make_low_weight(4, 0),
    "low weight, k=1": lambda: make_low_weight(4, 3),
    "low weight, s>k": lambda: make_low_weight(7, 4),
    "polynomial": lambda: make_polynomial(7, 2),
    "dense": lambda: make_dense_gaussian(7, 2),
    "own supports": lambda: search_code([(0, 1), (1, 2), (0, 2), (0, 1, 2)], 3, 1),
    "own generator": lambda: Code([[1, 0], [0, 1], [1, 2]], 1),
}
PRODUCTS: dict[str, Callable[[], Code]] = {
    "2x2": lambda: make_low_weight_product(2, 2, 1),
    "2x3": lambda: make_low_weight_product(2, 3, 2),
    "1x3": lambda: make_low_weight_product(1, 3, 1),
    "s=0": lambda: make_low_weight_product(2, 2, 0),
}


@pytest.fixture(scope="module", params=MAKERS)
def code(request: pytest.FixtureRequest) -> Code:
    return MAKERS[request.param]()


def draw_blocks(code: Code, dtype: Any = np.float64, shape: tuple[int, ...] = (4, 5)) -> list[Any]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(code.k)]


def drop_stragglers(answers: list[Any], stragglers: tuple[int, ...]) -> dict[int, Any]:
    """The answers of the workers that remain, by worker."""
    return {i: answer for i, answer in enumerate(answers) if i not in stragglers}


def compute_relative_error(decoded: list[Any], direct: list[Any]) -> float:
    return float(np.linalg.norm(np.subtract(decoded, direct)) / np.linalg.norm(direct))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_decoded_results_equal_direct_ones_for_every_loss(code: Code, dtype: Any) -> None:
    blocks = draw_blocks(code, dtype)
    x = np.random.default_rng(2).standard_normal(4).astype(dtype)
    answers = [block.T @ x for block in code.encode(blocks)]
    direct = [block.T @ x for block in blocks]
    bound = 20 * certify(code).worst_condition * np.finfo(dtype).eps
    for stragglers in combinations(range(code.n), code.s):
        decoded = code.decode(drop_stragglers(answers, stragglers))
        assert compute_relative_error(decoded, direct) <= bound
        assert all(block.dtype == dtype and block.shape == (5,) for block in decoded)


def test_fewer_losses_than_tolerated_decode(code: Code) -> None:
    blocks = draw_blocks(code)
    answers = code.encode(blocks)
    for lost in range(code.s):
        decoded = code.decode(drop_stragglers(answers, tuple(range(lost))))
        assert compute_relative_error(decoded, blocks) <= 1e-11


def test_fewer_answers_than_blocks_are_refused(code: Code) -> None:
    answers = code.encode(draw_blocks(code))
    for left in combinations(range(code.n), code.k - 1):
        assert not code.is_decodable(left)
        with pytest.raises(NotDecodableError, match=f"needs {code.k} that are independent"):
            code.decode({i: answers[i] for i in left})


def test_is_decodable_where_decode_succeeds(code: Code) -> None:
    answers = code.encode(draw_blocks(code))
    for size in range(code.k, code.n + 1):
        for left in combinations(range(code.n), size):
            rank = np.linalg.matrix_rank(code.generator[list(left)])
            assert code.is_decodable(left) == (rank == code.k)
            if rank < code.k:
                with pytest.raises(NotDecodableError):
                    code.decode({i: answers[i] for i in left})


def test_the_order_of_arrival_does_not_change_the_result(code: Code) -> None:
    answers = dict(enumerate(code.encode(draw_blocks(code, np.float32))))
    first = code.decode(answers)
    reverse = code.decode(dict(reversed(answers.items())))
    fresh = Code(code.generator, code.s).decode(dict(sorted(answers.items(), key=lambda a: -a[0])))
    for a, b, c in zip(first, reverse, fresh, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_an_uncoded_block_is_its_answer_bit_for_bit(code: Code) -> None:
    answers = code.encode(draw_blocks(code, np.float32))
    for stragglers in combinations(range(code.n), code.s):
        left = drop_stragglers(answers, stragglers)
        decoded = code.decode(left)
        for worker in left:
            if code.supports[worker] == (block := code.supports[worker][:1]):
                assert decoded[block[0]].tobytes() == answers[worker].tobytes()


def test_decoded_blocks_share_no_memory_with_the_answers(code: Code) -> None:
    answers = code.encode(draw_blocks(code))
    for block in code.decode(dict(enumerate(answers))):
        assert not any(np.shares_memory(block, answer) for answer in answers)


def test_sparse_blocks_stay_sparse(code: Code) -> None:
    rng = np.random.default_rng(3)
    for kind in (sparse.csr_array, sparse.csr_matrix):
        blocks = [
            kind(sparse.random_array((30, 8), density=0.1, rng=rng, dtype=np.float32))
            for _ in range(code.k)
        ]
        coded = code.encode(blocks)
        dense = code.encode([block.toarray() for block in blocks])
        for worker, (csr, full) in enumerate(zip(coded, dense, strict=True)):
            assert type(csr) is kind
            assert csr.dtype == np.float32
            assert csr.nnz <= sum(blocks[b].nnz for b in code.supports[worker])
            np.testing.assert_allclose(csr.toarray(), full, rtol=1e-5, atol=1e-6)
        x = rng.standard_normal(30).astype(np.float32)
        decoded = code.decode({i: block.T @ x for i, block in enumerate(coded)})
        assert compute_relative_error(decoded, [block.T @ x for block in blocks]) <= 1e-4


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("as_csr", [False, True])
def test_uneven_and_empty_blocks_count_as_padded(code: Code, axis: int, as_csr: bool) -> None:
    rng = np.random.default_rng(4)
    sizes = [3 - i % 4 for i in range(code.k)]  # 3 2 1 0 …
    shapes = [(size, 6) if axis == 0 else (6, size) for size in sizes]
    blocks: list[Any] = [rng.standard_normal(shape) for shape in shapes]
    padded = [
        np.pad(block, [(0, 3 - block.shape[0]), (0, 0)] if axis == 0 else [(0, 0), (0, 3 - size)])
        for block, size in zip(blocks, sizes, strict=True)
    ]
    if as_csr:
        blocks = [sparse.csr_array(block) for block in blocks]
    decoded = code.decode(dict(enumerate(code.encode(blocks))))
    assert compute_relative_error(decoded, padded) <= 1e-11


@pytest.mark.parametrize("shape", [(0,), (3, 0), (), (7,), (2, 3, 4)])
def test_blocks_may_have_any_rank_and_size_zero(code: Code, shape: tuple[int, ...]) -> None:
    blocks = draw_blocks(code, np.float64, shape)
    for stragglers in combinations(range(code.n), code.s):
        decoded = code.decode(drop_stragglers(code.encode(blocks), stragglers))
        for block, direct in zip(decoded, blocks, strict=True):
            np.testing.assert_allclose(block, direct, atol=1e-10)


def test_sparse_blocks_may_have_no_nonzeros(code: Code) -> None:
    coded = code.encode([sparse.csr_array((4, 3), dtype=np.float32)] * code.k)
    assert [block.nnz for block in coded] == [0] * code.n
    assert not np.any(code.decode(dict(enumerate(coded))))


@pytest.mark.parametrize("make", PRODUCTS.values(), ids=PRODUCTS)
def test_products_decode_to_all_block_products(make: Callable[[], Code]) -> None:
    code = make()
    k_a, k_b = (factor.shape[1] for factor in code.factors or ())
    rng = np.random.default_rng(5)
    # Uneven columns: the last blocks of A and B are one column short.
    a = [rng.standard_normal((6, 3 - (p == k_a - 1))) for p in range(k_a)]
    b = [rng.standard_normal((6, 4 - (q == k_b - 1))) for q in range(k_b)]
    answers = [left.T @ right for left, right in code.encode(a, b)]
    for stragglers in combinations(range(code.n), code.s):
        decoded = code.decode(drop_stragglers(answers, stragglers))
        for p in range(k_a):
            for q in range(k_b):
                direct = a[p].T @ b[q]
                block = decoded[p * k_b + q]
                rows, columns = direct.shape
                np.testing.assert_allclose(block[:rows, :columns], direct, atol=1e-11)
                assert np.abs(block[rows:]).max(initial=0) <= 1e-11


def test_a_product_of_3_by_4_blocks_decodes_for_all_455_losses() -> None:
    code = make_low_weight_product(3, 4, 3)
    rng = np.random.default_rng(6)
    a = [sparse.random_array((40, 5), density=0.2, rng=rng, format="csr") for _ in range(3)]
    b = [sparse.random_array((40, 6), density=0.2, rng=rng, format="csr") for _ in range(4)]
    answers = [left.T @ right for left, right in code.encode(a, b)]
    assert all(sparse.issparse(answer) for answer in answers)
    direct = [(p.T @ q).toarray() for p in a for q in b]
    errors = [
        compute_relative_error(code.decode(drop_stragglers(answers, stragglers)), direct)
        for stragglers in combinations(range(15), 3)
    ]
    assert len(errors) == 455
    assert max(errors) <= 1e-11


@pytest.mark.parametrize("maker", [make_mds, make_low_weight])
def test_every_small_code_tolerates_every_loss(maker: Callable[[int, int], Code]) -> None:
    """n <= 12, s <= 4: by exact rank, and with errors bounded by the condition of each system."""
    eps = np.finfo(np.float64).eps
    for n in range(1, 13):
        for s in range(min(n, 5)):
            code = maker(n, s)
            certificate = certify(code)
            assert certificate.decodable
            assert certificate.exhaustive
            assert certificate.failing == 0
            blocks = draw_blocks(code, np.float64, (3,))
            answers = code.encode(blocks)
            for stragglers in combinations(range(n), s):
                left = drop_stragglers(answers, stragglers)
                magnified = compute_condition(code.generator[sorted(left)])
                assert magnified <= certificate.worst_condition * 1.001
                assert compute_relative_error(code.decode(left), blocks) <= 10 * magnified * eps


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_codes_decode_from_the_kth_answer_in_any_order(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 10))
    s = data.draw(st.integers(0, min(4, n - 1)))
    maker: Any = data.draw(st.sampled_from([make_mds, make_low_weight, make_dense_gaussian]))
    code = maker(n, s, seed=data.draw(st.integers(0, 99)), trials=3)
    arrival = data.draw(st.permutations(range(n)))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
    blocks = draw_blocks(code, np.float64, shape)
    answers = code.encode(blocks)
    present: dict[int, NDArray[Any]] = {}
    for worker in arrival:
        present[worker] = answers[worker]
        assert code.is_decodable(present.keys()) == (len(present) >= code.k)
        if code.is_decodable(present.keys()):
            for block, direct in zip(code.decode(present), blocks, strict=True):
                np.testing.assert_allclose(block, direct, atol=1e-8)


# -- wrong answers


@pytest.mark.parametrize("make", [lambda: make_mds(8, 3), lambda: make_low_weight(9, 3)])
@pytest.mark.parametrize("size", [1e-2, 1.0, 1e9, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_faulty_worker_is_identified(make: Callable[[], Code], size: float, dtype: Any) -> None:
    code = make()
    answers = code.encode(draw_blocks(code, dtype))
    for surplus in (2, 3):
        left = range(code.s - surplus, code.n)
        for wrong in left:
            sent = {i: answers[i].copy() for i in left}
            sent[wrong][1, 2] += dtype(size)
            with pytest.raises(InconsistentAnswersError, match=f"worker {wrong} is") as caught:
                code.decode(sent)
            assert caught.value.workers == (wrong,)
            del sent[wrong]  # the others still decode
            code.decode(sent)


def test_one_surplus_answer_detects_a_fault_without_its_worker() -> None:
    code = make_mds(8, 3)
    answers = code.encode(draw_blocks(code))
    for wrong in range(2, 8):
        sent = {i: answers[i].copy() for i in range(2, 8)}
        sent[wrong] += 1
        with pytest.raises(InconsistentAnswersError) as caught:
            code.decode(sent)
        assert caught.value.workers == ()


def test_three_replicas_identify_a_faulty_worker_and_two_do_not() -> None:
    code = make_replication(6, 2)
    answers = [np.full(3, 1.0 + i % 2) for i in range(6)]
    answers[3] = answers[3] + 1
    with pytest.raises(InconsistentAnswersError) as caught:
        code.decode(dict(enumerate(answers)))
    assert caught.value.workers == (3,)
    with pytest.raises(InconsistentAnswersError) as caught:
        code.decode({i: answers[i] for i in (0, 1, 2, 3)})
    assert caught.value.workers == ()


def test_rounding_is_not_a_contradiction() -> None:
    """Ill-conditioned, float32, all answers present: the checks do not magnify rounding errors."""
    code = make_dense_gaussian(24, 4, trials=1)
    assert certify(code, exhaustive_limit=1, samples=200).worst_condition > 1e3
    x = np.random.default_rng(7).standard_normal((50, 4)).astype(np.float32)
    blocks = draw_blocks(code, np.float32, (50, 9))
    answers = {i: block.T @ x for i, block in enumerate(code.encode(blocks))}
    code.decode(answers)
    answers[5][0, 0] += 0.01 * np.abs(answers[5]).max()
    with pytest.raises(InconsistentAnswersError, match="worker 5 is"):
        code.decode(answers)
    code.decode(answers, tolerance=0.1)


@pytest.mark.parametrize("maker", [make_mds, make_low_weight, make_dense_gaussian])
def test_float64_that_was_rounded_to_float32_is_not_a_contradiction(maker: Any) -> None:
    """float32 shards, answers sent as float64 or as lists."""
    code = maker(12, 3)
    blocks = draw_blocks(code, np.float32, (50, 9))
    x = np.random.default_rng(7).standard_normal(50)
    rounded = [(block.T @ x).astype(np.float32) for block in code.encode(blocks)]
    for sent in ([a.astype(np.float64) for a in rounded], [a.tolist() for a in rounded]):
        decoded = code.decode(dict(enumerate(sent)))
        assert compute_relative_error(decoded, [block.T @ x for block in blocks]) <= 1e-3
        wrong = dict(enumerate(np.array(sent)))
        wrong[4] = wrong[4] + 0.01 * np.abs(sent).max()
        with pytest.raises(InconsistentAnswersError, match="worker 4 is"):
            code.decode(wrong)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_denormal_answers_are_not_a_contradiction(dtype: Any) -> None:
    code = make_mds(8, 3)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    blocks = [(block * 20 * smallest).astype(dtype) for block in draw_blocks(code)]
    code.decode(dict(enumerate(code.encode(blocks))))


@pytest.mark.filterwarnings("error")
def test_encoding_values_that_are_not_finite_gives_no_warning() -> None:
    blocks = [np.array([np.inf, 1.0]), np.array([1.0, np.nan]), np.array([1e308, 1e308])]
    coded = Code([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]], 1).encode(blocks)
    assert not np.isfinite(coded[3]).any()
    csr = make_dense_gaussian(5, 2).encode([sparse.csr_array(block[None]) for block in blocks])
    assert not any(np.isfinite(block.toarray()).all() for block in csr)


@pytest.mark.filterwarnings("error")
def test_the_condition_of_a_singular_system_gives_no_warning() -> None:
    assert compute_condition(np.zeros((3, 3))) == np.inf
    assert compute_condition(np.ones((3, 3))) > 1e15


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_encoded_inputs_share_no_memory(kind: Any) -> None:
    code = make_replication(6, 1)
    blocks = [kind(np.full((2, 3), 1.0 + i)) for i in range(3)]
    coded = code.encode(blocks)
    for array in coded:
        (array if kind is np.asarray else array.data)[:] = -1
        for other in blocks + [c for c in coded if c is not array]:
            assert other.max() > 0
        (array if kind is np.asarray else array.data)[:] = 1


def test_answers_that_are_not_finite_are_refused() -> None:
    code = make_parity(4)
    answers = dict(enumerate(code.encode(draw_blocks(code))))
    for value in (np.nan, np.inf):
        sent = {i: answers[i].copy() for i in (1, 2, 3)}
        sent[2][0, 0] = value
        with pytest.raises(InconsistentAnswersError, match="not finite") as caught:
            code.decode(sent)
        assert caught.value.workers == (2,)


def test_of_surplus_answers_the_most_independent_are_used() -> None:
    code = Code([[1, 1], [1, 1 + 1e-9], [1, 1 + 3e-9], [1, -1]], 2)
    answers = code.encode([np.array([1 / 3]), np.array([1 / 7])])
    assert (
        compute_relative_error(code.decode({0: answers[0], 1: answers[1]}), [[1 / 3], [1 / 7]])
        > 1e-12
    )
    assert compute_relative_error(code.decode(dict(enumerate(answers))), [[1 / 3], [1 / 7]]) < 1e-15


@pytest.mark.filterwarnings("error")
def test_overflow_is_refused() -> None:
    code = make_parity(4)
    largest = np.full(3, np.finfo(np.float32).max)
    with pytest.raises(NotDecodableError, match="overflows"):
        code.decode({1: -largest, 2: -largest, 3: largest})


def test_the_worker_of_an_answer_of_another_shape_is_identified() -> None:
    code = make_parity(4)
    answers: dict[int, Any] = dict(enumerate(code.encode(draw_blocks(code))))
    answers[1] = answers[1][:, :2]
    with pytest.raises(InconsistentAnswersError, match="differ in shape") as caught:
        code.decode(answers)
    assert caught.value.workers == (1,)


def test_a_condition_that_leaves_no_correct_digit_is_refused() -> None:
    """The rank is full, but a condition number of 10^13 is too large for float32."""
    code = make_polynomial(30, 2)
    answers = code.encode(draw_blocks(code, np.float64))
    stragglers = certify(code).worst_set
    assert code.is_decodable(drop_stragglers(answers, stragglers))
    code.decode(drop_stragglers(answers, stragglers))
    with pytest.raises(NotDecodableError, match="no digit of float32"):
        code.decode(drop_stragglers([a.astype(np.float32) for a in answers], stragglers))


@pytest.mark.parametrize("worker", [4, -1, "0", 1.5, None])
def test_unknown_workers_are_refused(worker: Any) -> None:
    code = make_parity(4)
    answer = np.zeros(3)
    with pytest.raises(ConfigError, match="worker"):
        code.decode({0: answer, 1: answer, 2: answer, worker: answer})
    with pytest.raises(ConfigError, match="worker"):
        code.is_decodable([0, 1, worker])


@pytest.mark.parametrize("worker", [1.0, np.float64(1), "1", 7, -1])
def test_unknown_workers_are_refused_also_with_cached_plans(worker: Any) -> None:
    code = make_parity(4)
    answer = np.zeros(3)
    assert code.is_decodable([0, 1, 2])
    code.decode({0: answer, 1: answer, 2: answer})
    for workers in ([worker], [0, worker, 2]):
        with pytest.raises(ConfigError, match="worker"):
            code.is_decodable(workers)
        with pytest.raises(ConfigError, match="worker"):
            code.decode(dict.fromkeys(workers, answer))


@pytest.mark.parametrize("answers", [[np.zeros(3)] * 4, np.zeros((4, 3)), None])
def test_answers_must_be_a_mapping(answers: Any) -> None:
    with pytest.raises(ConfigError, match="mapping"):
        make_parity(4).decode(answers)


def test_blocks_and_workers_may_be_iterators() -> None:
    code = make_parity(4)
    blocks = draw_blocks(code)
    for one, other in zip(code.encode(iter(blocks)), code.encode(blocks), strict=True):
        np.testing.assert_array_equal(one, other)
    assert code.is_decodable(worker for worker in range(1, 4))
    assert not code.is_decodable(worker for worker in (1, 1, 2))
    assert code.decode({np.int64(i): block for i, block in enumerate(blocks)})


def test_the_errors_of_decoding_are_exported() -> None:
    assert coding.NotDecodableError is NotDecodableError
    assert coding.InconsistentAnswersError is InconsistentAnswersError


def test_integers_are_encoded_in_float64() -> None:
    code = make_parity(4)
    blocks = [np.full((2, 2), 200 + i, np.uint8) for i in range(3)]
    coded = code.encode(blocks)
    assert coded[3].dtype == np.float64
    np.testing.assert_array_equal(coded[3], np.full((2, 2), 603.0))
    answers = {i: coded[i].astype(np.int64) for i in (0, 2, 3)}
    np.testing.assert_array_equal(code.decode(answers)[1], blocks[1])
    for wrong in (np.ones(3, bool), np.ones(3, complex), np.array(["a"] * 3)):
        with pytest.raises(ConfigError, match="real numbers"):
            code.decode(dict.fromkeys((0, 1, 2), wrong))


def test_blocks_that_do_not_fit_the_code_are_refused() -> None:
    code = make_parity(4)
    for blocks, reason in [
        ([np.zeros(2)] * 2, "takes 3"),
        ([np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((3, 3))], "one axis"),
        ([np.zeros(2), np.zeros((2, 2)), np.zeros(2)], "rank"),
        ([np.zeros((2, 2)), sparse.csr_array((2, 2)), np.zeros((2, 2))], "partly sparse"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            code.encode(blocks)
    with pytest.raises(ConfigError, match="one matrix"):
        code.encode([np.zeros(2)] * 3, [np.zeros(2)] * 3)
    with pytest.raises(ConfigError, match="two matrices"):
        make_low_weight_product(2, 2, 1).encode([np.zeros((2, 2))] * 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_uncoded(0),
        lambda: make_parity(1),
        lambda: make_mds(4, 4),
        lambda: make_mds(4, -1),
        lambda: make_mds(10**6, 1),
        lambda: make_mds(4, 1, trials=0),
        lambda: make_mds(4, 1, seed=-1),
        lambda: make_low_weight(3, 3),
        lambda: make_replication(3, 3),
        lambda: make_low_weight_product(0, 3, 1),
        lambda: Code([[1.0, np.nan]], 0),
        lambda: Code([1.0, 2.0], 0),
        lambda: Code(np.eye(3), 1),
        lambda: Code(np.eye(4), 0, factors=(np.ones((4, 2)), np.ones((4, 2)))),
        lambda: search_code([(0,), (2,)], 2, 0),
        lambda: compute_lower_bound(3, 3),
    ],
)
def test_invalid_parameters_of_codes_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_the_generator_is_read_only_and_depends_on_the_seed() -> None:
    code = make_mds(8, 3, seed=4)
    with pytest.raises(ValueError, match="read-only"):
        code.generator[0, 0] = 2
    assert code.generator.tobytes() == make_mds(8, 3, seed=4).generator.tobytes()
    assert code.generator.tobytes() != make_mds(8, 3, seed=5).generator.tobytes()
