"""Which blocks, answers, workers and parameters a code accepts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from ddnn import coding
from ddnn.coding import (
    Code,
    compute_lower_bound,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    make_parity,
    make_replication,
    make_uncoded,
    search_code,
)
from ddnn.errors import ConfigError, InconsistentAnswersError, NotDecodableError
from tests.unit.coding.code_builders import draw_blocks


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


def test_the_errors_of_decoding_are_exported() -> None:
    assert coding.NotDecodableError is NotDecodableError
    assert coding.InconsistentAnswersError is InconsistentAnswersError


@pytest.mark.parametrize("generator", [[[1, 2], [1]], [["a"]], [[1j]], None, [[np.nan]], [1, 2]])
def test_a_generator_that_is_no_real_matrix_is_refused(generator: Any) -> None:
    with pytest.raises(ConfigError, match=r"matrix|real"):
        Code(generator, 0)


@pytest.mark.parametrize("s", [0.5, 1.0, "1", None, -1])
def test_a_number_of_losses_that_is_no_whole_number_is_refused(s: Any) -> None:
    with pytest.raises(ConfigError, match="losses"):
        Code(np.ones((3, 1)), s)
