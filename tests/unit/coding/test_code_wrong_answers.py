"""Answers of faulty workers are detected; rounding errors are not taken for faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddnn.coding import (
    Code,
    certify,
    make_dense_gaussian,
    make_low_weight,
    make_mds,
    make_parity,
    make_polynomial,
    make_replication,
)
from ddnn.errors import InconsistentAnswersError, NotDecodableError
from tests.unit.coding.code_builders import compute_relative_error, draw_blocks, drop_stragglers


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


def test_answers_that_are_not_finite_are_refused() -> None:
    code = make_parity(4)
    answers = dict(enumerate(code.encode(draw_blocks(code))))
    for value in (np.nan, np.inf):
        sent = {i: answers[i].copy() for i in (1, 2, 3)}
        sent[2][0, 0] = value
        with pytest.raises(InconsistentAnswersError, match="not finite") as caught:
            code.decode(sent)
        assert caught.value.workers == (2,)


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
