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

from ddnn.coding import (
    Code,
    certify,
    make_dense_gaussian,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    make_replication,
)
from ddnn.coding.conditioning import compute_condition
from ddnn.errors import NotDecodableError
from tests.unit.coding.code_builders import (
    MAKERS,
    PRODUCTS,
    compute_relative_error,
    draw_blocks,
    drop_stragglers,
)


@pytest.fixture(scope="module", params=MAKERS)
def code(request: pytest.FixtureRequest) -> Code:
    return MAKERS[request.param]()


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


def test_of_surplus_answers_the_most_independent_are_used() -> None:
    code = Code([[1, 1], [1, 1 + 1e-9], [1, 1 + 3e-9], [1, -1]], 2)
    answers = code.encode([np.array([1 / 3]), np.array([1 / 7])])
    assert (
        compute_relative_error(code.decode({0: answers[0], 1: answers[1]}), [[1 / 3], [1 / 7]])
        > 1e-12
    )
    assert compute_relative_error(code.decode(dict(enumerate(answers))), [[1 / 3], [1 / 7]]) < 1e-15


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


@pytest.mark.filterwarnings("error")
def test_the_condition_of_a_singular_system_gives_no_warning() -> None:
    assert compute_condition(np.zeros((3, 3))) == np.inf
    assert compute_condition(np.ones((3, 3))) > 1e15


@pytest.mark.filterwarnings("error")
def test_encoding_values_that_are_not_finite_gives_no_warning() -> None:
    blocks = [np.array([np.inf, 1.0]), np.array([1.0, np.nan]), np.array([1e308, 1e308])]
    coded = Code([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]], 1).encode(blocks)
    assert not np.isfinite(coded[3]).any()
    csr = make_dense_gaussian(5, 2).encode([sparse.csr_array(block[None]) for block in blocks])
    assert not any(np.isfinite(block.toarray()).all() for block in csr)
