"""Layers split into coded shards: for every loss, the merged output equals the undivided one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from ddnn.coding.certification import certify
from ddnn.coding.code import Code
from ddnn.coding.constructions import (
    make_dense_gaussian,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    make_parity,
    make_polynomial,
    make_replication,
    make_uncoded,
)
from ddnn.coding.layers import SUITABLE, UNSUITABLE, Linear, SplitLayer, split_layer
from ddnn.errors import ConfigError, InconsistentAnswersError, NotDecodableError

CODES: dict[str, Callable[[], Code]] = {
    "uncoded": lambda: make_uncoded(4),
    "parity": lambda: make_parity(5),
    "mds": lambda: make_mds(6, 2, seed=3),
    "low_weight": lambda: make_low_weight(6, 2, seed=3),
    "low_weight k<=s": lambda: make_low_weight(5, 3, seed=3),
    "replication": lambda: make_replication(6, 1),
    "polynomial": lambda: make_polynomial(6, 2),
    "dense_gaussian": lambda: make_dense_gaussian(6, 2, seed=3),
    "one worker": lambda: make_uncoded(1),
    "one block": lambda: make_parity(2),
}


def make_rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def make_dense_layer(
    units: int, bias: bool, density: float = 1.0, dtype: type = np.float32
) -> Linear:
    kernel = make_rng(5).normal(size=(9, units)) * (make_rng(6).random((9, units)) < density)
    return Linear("dense", kernel.astype(dtype), make_rng(7).normal(size=units) if bias else None)


def make_conv_layer(units: int, bias: bool, **options: Any) -> Linear:
    kernel = make_rng(5).normal(size=(3, 3, 2, units)).astype(np.float32)
    return Linear("conv2d", kernel, make_rng(7).normal(size=units) if bias else None, **options)


LAYERS: dict[str, tuple[Callable[[], Linear], tuple[int, ...]]] = {
    "dense, divisible": (lambda: make_dense_layer(12, True), (9,)),
    "dense, uneven, no bias": (lambda: make_dense_layer(11, False), (9,)),
    "dense, several vectors": (lambda: make_dense_layer(7, True), (2, 3, 9)),
    "dense, fewer outputs than blocks": (lambda: make_dense_layer(2, True), (9,)),
    "dense, one output": (lambda: make_dense_layer(1, True), (9,)),
    "dense, sparse": (lambda: make_dense_layer(13, True, 0.1), (4, 9)),
    "dense, all zeros": (lambda: make_dense_layer(5, True, 0.0), (9,)),
    "conv2d, uneven": (lambda: make_conv_layer(7, True), (6, 5, 2)),
    "conv2d, same, strides": (
        lambda: make_conv_layer(5, True, padding="same", strides=(2, 3)),
        (2, 8, 7, 2),
    ),
    "conv2d, dilated, no bias": (lambda: make_conv_layer(3, False, dilation=(2, 1)), (8, 5, 2)),
}


def make_case(layer: str) -> tuple[Linear, np.ndarray]:
    make, shape = LAYERS[layer]
    return make(), make_rng(8).normal(size=shape).astype(np.float32)


def compute_answers(split: SplitLayer, x: np.ndarray) -> dict[int, np.ndarray]:
    return {worker: shard(x) for worker, shard in enumerate(split.shards)}


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


# -- refused arguments


@pytest.mark.parametrize(
    ("layer", "method", "reason"),
    [
        ("dense, divisible", "input", "share no factor"),
        ("conv2d, uneven", "spatial", "run time"),
        ("conv2d, uneven", "filter", "no common factor"),
        ("conv2d, uneven", "input", "no common factor"),
        ("conv2d, uneven", "Input Channel", "no common factor"),
        ("conv2d, uneven", "input_channel", "no common factor"),
        ("dense, divisible", "INPUT", "share no factor"),
        ("dense, divisible", "channel", "only inputs and outputs"),
        ("dense, divisible", "spatial", "only inputs and outputs"),
        ("dense, divisible", "filter", "only inputs and outputs"),
    ],
)
def test_unsuitable_splits_are_refused_with_the_reason(
    layer: str, method: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        split_layer(make_case(layer)[0], 4, 1, method)


def test_every_refusal_has_its_own_reason() -> None:
    assert len(set(UNSUITABLE.values())) == len(UNSUITABLE) == 3


@pytest.mark.parametrize(
    ("layer", "known"),
    [("dense, divisible", "output, input"), ("conv2d, uneven", "channel, spatial, filter")],
)
def test_the_error_for_an_unknown_split_lists_the_known_ones(layer: str, known: str) -> None:
    for method in ("rows", "", "batch" if "conv" in layer else "channel"):
        with pytest.raises(ConfigError, match=known):
            split_layer(make_case(layer)[0], 4, 1, method)


@pytest.mark.parametrize("layer", ["dense, divisible", "conv2d, uneven"])
def test_the_suitable_split_is_accepted_by_name(layer: str) -> None:
    whole, x = make_case(layer)
    split = split_layer(whole, 4, 1, SUITABLE[whole.kind])
    np.testing.assert_allclose(
        split.merge({i: split.shards[i](x) for i in (1, 2, 3)}), whole(x), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("layer", "method"),
    [
        ("dense, divisible", "Output"),
        ("conv2d, uneven", " CHANNEL "),
        ("conv2d, uneven", "output"),
        ("conv2d, uneven", "output_channel"),
        ("conv2d, uneven", "Output Channel"),
    ],
)
def test_the_suitable_split_has_several_names(layer: str, method: str) -> None:
    assert len(split_layer(make_case(layer)[0], 4, 1, method).shards) == 4


@pytest.mark.parametrize(
    ("n", "s", "code"),
    [(5, 2, make_parity(5)), (6, 1, make_parity(5)), (6, 2, make_low_weight_product(2, 2, 2))],
)
def test_a_code_for_other_parameters_is_refused(n: int, s: int, code: Code) -> None:
    with pytest.raises(ConfigError, match="expected a matrix-vector code"):
        split_layer(make_case("dense, divisible")[0], n, s, code=code)


@pytest.mark.parametrize(("n", "s"), [(3, 3), (3, -1), (0, 0), (1, 1)])
def test_invalid_numbers_of_workers_are_refused(n: int, s: int) -> None:
    with pytest.raises(ConfigError):
        split_layer(make_case("dense, divisible")[0], n, s)


KERNEL = np.ones((3, 4), np.float32)
FILTERS = np.ones((3, 3, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: Linear("dense", FILTERS), "2 axes"),
        (lambda: Linear("conv2d", KERNEL), "4 axes"),
        (lambda: Linear("conv2d", sparse.csr_array(KERNEL)), "4 axes"),
        (lambda: Linear("lstm", KERNEL), "dense or conv2d"),  # type: ignore[arg-type]
        (lambda: Linear("dense", KERNEL[:, :0]), "length 0"),
        (lambda: Linear("dense", KERNEL.astype(np.int8)), "int8"),
        (lambda: Linear("dense", KERNEL, np.ones(3)), "one value for each of the 4"),
        (lambda: Linear("dense", KERNEL * np.nan), "finite"),
        (lambda: Linear("dense", KERNEL, np.full(4, np.inf)), "finite"),
        (lambda: Linear("conv2d", FILTERS, strides=(0, 1)), "strides"),
        (lambda: Linear("conv2d", FILTERS, padding="causal"), "causal"),  # type: ignore[arg-type]
    ],
)
def test_kernels_biases_and_options_that_do_not_fit_are_refused(
    layer: Callable[[], Linear], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        layer()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("dense, divisible", (8,)),
        ("dense, divisible", ()),
        ("conv2d, uneven", (6, 5, 3)),
        ("conv2d, uneven", (5, 2)),
        ("conv2d, uneven", (2, 5, 2)),
    ],
)
def test_an_input_that_does_not_fit_is_refused(layer: str, shape: tuple[int, ...]) -> None:
    whole, _ = make_case(layer)
    with pytest.raises(ConfigError):
        whole.compute_output_shape(shape)
    with pytest.raises(ConfigError):
        whole(np.zeros(shape, np.float32))


@pytest.mark.parametrize("strides", [0, (1, 2, 3), 1.5, "2", None, (1, None)])
def test_strides_must_be_one_or_two_integers(strides: Any) -> None:
    with pytest.raises(ConfigError, match="strides"):
        Linear("conv2d", FILTERS, strides=strides)


def test_one_stride_is_used_for_both_axes() -> None:
    layer = Linear("conv2d", FILTERS, strides=2, dilation=np.int64(1))
    assert (layer.strides, layer.dilation) == ((2, 2), (1, 1))
    assert layer(np.ones((7, 7, 2), np.float32)).shape == (3, 3, 4)


def test_lists_are_accepted_as_arrays() -> None:
    whole, x = make_case("dense, divisible")
    np.testing.assert_allclose(whole(x.tolist()), whole(x), rtol=1e-5)
    split = split_layer(whole, 5, 1)
    answers = {worker: z.tolist() for worker, z in compute_answers(split, x).items()}
    np.testing.assert_allclose(split.merge(answers), whole(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="mapping"):
        split.merge(list(answers.values()))  # type: ignore[arg-type]


# -- layers of other frameworks


def test_any_object_with_a_kernel_and_a_bias_is_a_layer() -> None:
    layer = SimpleNamespace(kernel=KERNEL, bias=None)
    assert Linear.of(layer).kind == "dense"
    assert Linear.of(SimpleNamespace(kernel=sparse.csr_array(KERNEL), bias=None)).is_sparse
    layer = SimpleNamespace(kernel=FILTERS, bias=np.ones(4), strides=2, padding="same")
    linear = Linear.of(layer)
    assert (linear.kind, linear.strides, linear.padding) == ("conv2d", (2, 2), "same")
    assert Linear.of(linear) is linear


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (SimpleNamespace(), "no kernel and bias"),
        (SimpleNamespace(kernel=KERNEL), "no kernel and bias"),
        (np.ones((3, 4)), "no kernel and bias"),
        (SimpleNamespace(kernel=FILTERS, bias=None, groups=2), "2 groups"),
        (SimpleNamespace(kernel=FILTERS, bias=None, data_format="channels_first"), "channels_last"),
        (SimpleNamespace(kernel=FILTERS, bias=None, padding="causal"), "causal"),
        (SimpleNamespace(kernel=FILTERS[0], bias=None), "shape"),
        (SimpleNamespace(kernel=KERNEL, bias=None, quantization_mode="int8"), "quantized"),
    ],
)
def test_other_objects_are_refused(layer: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        split_layer(layer, 3, 1)
