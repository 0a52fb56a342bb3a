"""Layers split into coded shards: for every loss, the merged output equals the undivided one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy import sparse

from ddnn.coding.certification import certify
from ddnn.coding.constructions import make_dense_gaussian, make_low_weight
from ddnn.coding.layers import Linear, split_layer
from ddnn.errors import InconsistentAnswersError, NotDecodableError
from tests.unit.coding.layer_builders import (
    CODES,
    LAYERS,
    compute_answers,
    make_case,
    make_conv_layer,
    make_dense_layer,
    make_rng,
)


def apply_relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", CODES)
def test_merged_outputs_equal_the_undivided_layer_for_every_loss(name: str, layer: str) -> None:
    code = CODES[name]()
    whole, x = make_case(layer)
    split = split_layer(whole, code.n, code.s, code=code)
    answers, expected = compute_answers(split, x), whole(x)
    shapes = {(z.shape, z.dtype) for z in answers.values()}
    assert len(shapes) == 1, "all shards have outputs of one shape"
    bound = 100 * certify(code).worst_condition * np.finfo(np.float32).eps
    for stragglers in combinations(range(code.n), code.s):
        z = split.merge({i: answers[i] for i in answers if i not in stragglers})
        assert z.shape == expected.shape
        assert np.abs(z - expected).max() <= bound * max(1, np.abs(expected).max())
        # An activation after decoding equals that of the undivided layer.
        assert np.abs(apply_relu(z) - apply_relu(expected)).max() <= bound * max(
            1, np.abs(expected).max()
        )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("n", "s"), [(3, 0), (4, 1), (5, 2), (6, 3)])
def test_default_codes_tolerate_every_loss(layer: str, n: int, s: int) -> None:
    whole, x = make_case(layer)
    split = split_layer(whole, n, s)
    assert (split.code.n, split.code.s) == (n, s)
    answers, expected = compute_answers(split, x), whole(x)
    for stragglers in combinations(range(n), s):
        z = split.merge({i: answers[i] for i in answers if i not in stragglers})
        np.testing.assert_allclose(z, expected, rtol=1e-3, atol=1e-3)
    if s < n - s:
        with pytest.raises(NotDecodableError):
            split.merge({i: answers[i] for i in range(n - s - 1)})


def test_a_float64_layer_is_computed_in_float64() -> None:
    whole, x = make_dense_layer(10, True, dtype=np.float64), make_rng(8).normal(size=9)
    split = split_layer(whole, 6, 2)
    answers = compute_answers(split, x)
    del answers[0], answers[3]
    z = split.merge(answers)
    assert z.dtype == np.float64
    np.testing.assert_allclose(z, whole(x), rtol=1e-11, atol=1e-11)


def test_the_single_parity_is_the_sum_of_the_padded_shards() -> None:
    """W_cdc = sum W_i, b_cdc = sum b_i; a_i = a_cdc - the others (EDGE 2023, section V)."""
    whole, x = make_dense_layer(10, True), make_rng(8).normal(size=9).astype(np.float32)
    split = split_layer(whole, 5, 1)
    *shards, parity = split.shards
    sizes = [3, 3, 2, 2]
    kernel, bias = np.zeros((9, 3)), np.zeros(3)
    for shard, start, size in zip(shards, (0, 3, 6, 8), sizes, strict=True):
        np.testing.assert_array_equal(shard.kernel[:, :size], whole.kernel[:, start : start + size])
        assert not shard.kernel[:, size:].any()
        assert not shard.bias[size:].any()
        kernel[:, :size] += whole.kernel[:, start : start + size]
        bias[:size] += whole.bias[start : start + size]
    np.testing.assert_allclose(parity.kernel, kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parity.bias, bias, rtol=1e-5, atol=1e-6)
    z = compute_answers(split, x)
    lost = z[4] - z[0] - z[2] - z[3]
    np.testing.assert_allclose(lost, whole(x)[3:6], rtol=1e-4, atol=1e-4)


def test_sparse_shards_are_csr_and_full_ones_are_dense() -> None:
    kernel = make_rng(5).normal(size=(300, 120)) * (make_rng(6).random((300, 120)) < 0.05)
    whole = Linear("dense", kernel.astype(np.float32))
    low_weight = split_layer(whole, 12, 2, code=make_low_weight(12, 2))
    assert all(shard.is_sparse for shard in low_weight.shards)
    for shard, support in zip(low_weight.shards, low_weight.code.supports, strict=True):
        assert np.count_nonzero(shard.kernel.toarray()) <= sum(
            np.count_nonzero(kernel[:, 12 * block : 12 * (block + 1)]) for block in support
        )
    fuller = Linear("dense", (kernel + (make_rng(7).random(kernel.shape) < 0.3)).astype(np.float32))
    split = split_layer(fuller, 12, 2, code=make_dense_gaussian(12, 2))
    assert not any(shard.is_sparse for shard in split.shards)


def test_a_sparse_kernel_is_split_like_the_dense_one() -> None:
    whole, x = make_case("dense, sparse")
    for given in (whole.kernel, sparse.csr_array(whole.kernel), sparse.csr_matrix(whole.kernel)):
        split = split_layer(Linear("dense", given, whole.bias), 5, 2)
        z = split.merge({i: split.shards[i](x) for i in (1, 2, 4)})
        np.testing.assert_allclose(z, whole(x), rtol=1e-3, atol=1e-3)


# -- operations before and after decoding


@pytest.mark.parametrize("layer", ["dense, divisible", "conv2d, uneven"])
@pytest.mark.parametrize("name", ["parity", "mds", "low_weight", "dense_gaussian"])
def test_relu_before_decoding_is_detected(name: str, layer: str) -> None:
    code = CODES[name]()
    whole, x = make_case(layer)
    split = split_layer(whole, code.n, code.s, code=code)
    early = {worker: apply_relu(z) for worker, z in compute_answers(split, x).items()}
    with pytest.raises(InconsistentAnswersError):
        split.merge(early)
    # Without surplus answers it is not detected, and the result is wrong.
    correct = apply_relu(whole(x))
    worst = max(
        np.abs(split.merge({i: early[i] for i in early if i not in stragglers}) - correct).max()
        for stragglers in combinations(range(code.n), code.s)
    )
    assert worst > 0.5


def test_batch_normalization_may_be_folded_into_the_layer_before_coding() -> None:
    """In inference it is affine: gamma (W x + b) + beta is a linear layer, too."""
    whole, x = make_case("conv2d, uneven")
    scale, shift = make_rng(1).normal(size=(2, 7)).astype(np.float32)
    folded = Linear("conv2d", whole.kernel * scale, whole.bias * scale + shift)
    after, before = split_layer(whole, 5, 2), split_layer(folded, 5, 2)
    three = (0, 3, 4)
    z = after.merge({i: after.shards[i](x) for i in three}) * scale + shift
    np.testing.assert_allclose(
        before.merge({i: before.shards[i](x) for i in three}), z, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(z, whole(x) * scale + shift, rtol=1e-3, atol=1e-3)


def pool(z: np.ndarray, how: Callable[..., np.ndarray]) -> np.ndarray:
    """2x2 pooling with stride 2 of [h, w, channels]."""
    height, width, channels = z.shape
    tiles = z[: height // 2 * 2, : width // 2 * 2]
    tiles = tiles.reshape(height // 2, 2, width // 2, 2, channels)
    return how(tiles, axis=(1, 3))


def test_average_pooling_commutes_and_max_pooling_does_not() -> None:
    whole = make_conv_layer(7, True)
    x = make_rng(8).normal(size=(10, 10, 2)).astype(np.float32)
    split = split_layer(whole, 5, 2)
    error = {}
    for how in (np.mean, np.max):
        answers = {i: pool(split.shards[i](x), how) for i in (0, 3, 4)}
        error[how] = np.abs(split.merge(answers) - pool(whole(x), how)).max()
    assert error[np.mean] < 1e-3
    assert error[np.max] > 0.5


def test_a_faulty_shard_is_identified() -> None:
    whole, x = make_case("dense, divisible")
    split = split_layer(whole, 7, 3)
    answers = compute_answers(split, x)
    answers[2] = answers[2] + 1
    with pytest.raises(InconsistentAnswersError) as caught:
        split.merge(answers)
    assert caught.value.workers == (2,)


@pytest.mark.parametrize("z", [np.zeros(2), np.zeros(4), np.float32(0), np.zeros((3, 1))])
def test_the_shard_of_an_answer_of_another_size_is_identified(z: np.ndarray) -> None:
    whole, x = make_case("dense, divisible")
    split = split_layer(whole, 5, 1)
    answers = {**compute_answers(split, x), 3: z}
    with pytest.raises(InconsistentAnswersError) as caught:
        split.merge(answers)
    assert caught.value.workers == (3,)


def test_answers_that_are_all_too_small_are_refused() -> None:
    whole, x = make_case("dense, divisible")
    split = split_layer(whole, 5, 1)
    small = {worker: z[:2] for worker, z in compute_answers(split, x).items()}
    with pytest.raises(InconsistentAnswersError, match="3 outputs"):
        split.merge(small)
