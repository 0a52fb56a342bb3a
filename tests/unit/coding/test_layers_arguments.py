"""Which layers, inputs and ways of splitting are accepted, and why others are refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from ddnn.coding.code import Code
from ddnn.coding.constructions import make_low_weight_product, make_parity
from ddnn.coding.layers import SUITABLE, UNSUITABLE, Linear, split_layer
from ddnn.errors import ConfigError
from tests.unit.coding.layer_builders import compute_answers, make_case

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
