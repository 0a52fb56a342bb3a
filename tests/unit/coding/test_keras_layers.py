"""Real Keras layers: the linear part equals that of Keras, other layers are refused."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from ddnn.coding.layers import Linear, split_layer
from ddnn.errors import ConfigError
from ddnn.training.blocks import BinaryConv2D, BinaryDense


def build(layer: Any, shape: tuple[int, ...]) -> Any:
    """The layer with random weights, also for the bias, which is initialized with zeros."""
    layer.build((None, *shape))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])
    return layer


CONVOLUTIONS = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": (2, 5), "padding": "same"},
    {"kernel_size": 4, "padding": "same", "strides": 2},
    {"kernel_size": (3, 2), "padding": "same", "strides": (3, 2)},
    {"kernel_size": 1, "padding": "same", "strides": 3},
    {"kernel_size": (5, 3), "strides": (2, 1)},
    {"kernel_size": 3, "dilation_rate": 2},
    {"kernel_size": (2, 3), "padding": "same", "dilation_rate": (3, 2)},
    {"kernel_size": 3, "use_bias": False},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("shape", [(9, 8, 3), (7, 12, 3)])
def test_convolutions_equal_those_of_keras(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    layer = build(layers.Conv2D(5, activation="relu", **options), shape)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    linear, expected = Linear.of(layer), np.asarray(layer(x))
    np.testing.assert_allclose(np.maximum(linear(x), 0), expected, rtol=1e-4, atol=1e-4)
    assert linear.compute_output_shape(shape) == expected.shape[1:]
    split = split_layer(layer, 4, 1)
    answers = {i: shard(x) for i, shard in enumerate(split.shards)}
    for stragglers in range(4):
        z = split.merge({i: answers[i] for i in answers if i != stragglers})
        np.testing.assert_allclose(np.maximum(z, 0), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(11,), (3, 11)])
def test_dense_layers_equal_those_of_keras(bias: bool, shape: tuple[int, ...]) -> None:
    layer = build(layers.Dense(7, activation="tanh", use_bias=bias), shape)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    expected = np.asarray(layer(x))
    np.testing.assert_allclose(np.tanh(Linear.of(layer)(x)), expected, rtol=1e-4, atol=1e-5)
    split = split_layer(layer, 5, 2)
    for three in combinations(range(5), 3):
        z = split.merge({i: split.shards[i](x) for i in three})
        np.testing.assert_allclose(np.tanh(z), expected, rtol=1e-3, atol=1e-3)


def test_a_shard_equals_a_keras_layer_with_its_kernel() -> None:
    """A worker gets such a layer: with the weights of the shard and without an activation."""
    layer = build(layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"), (8, 8, 2))
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 2)).astype(np.float32)
    for shard in split_layer(layer, 4, 1).shards:
        other = layers.Conv2D(
            shard.units,
            shard.kernel.shape[:2],
            strides=shard.strides,
            padding=shard.padding,
            dilation_rate=shard.dilation,
        )
        other.build(x.shape)
        other.set_weights([shard.kernel, shard.bias])
        np.testing.assert_allclose(shard(x), np.asarray(other(x)), rtol=1e-4, atol=1e-4)


IMAGE, LINE = (8, 8, 4), (8, 4)


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (lambda: layers.DepthwiseConv2D(3), IMAGE, "depthwise"),
        (lambda: layers.SeparableConv2D(4, 3), IMAGE, "depthwise"),
        (lambda: layers.Conv2DTranspose(4, 3), IMAGE, "transposed"),
        (lambda: layers.Conv2D(4, 3, groups=2), IMAGE, "2 groups"),
        (lambda: layers.Conv2D(4, 3, data_format="channels_first"), IMAGE, "channels_first"),
        (lambda: layers.Conv1D(4, 3), LINE, "shape"),
        (lambda: layers.Conv1D(4, 3, padding="causal"), LINE, "causal"),
        (lambda: layers.Conv3D(4, 2), (4, *IMAGE), "shape"),
        (lambda: layers.EinsumDense("bc,cd->bd", 4), (4,), "einsum"),
        (lambda: layers.BatchNormalization(), IMAGE, "no kernel"),
        (lambda: layers.LSTM(3), LINE, "no kernel"),
        (lambda: BinaryDense(4), (4,), "no kernel and bias"),
        (lambda: BinaryConv2D(4), IMAGE, "no kernel and bias"),
    ],
)
def test_other_layers_than_dense_and_ordinary_conv2d_are_refused(
    layer: Any, shape: tuple[int, ...], reason: str
) -> None:
    instance = layer()
    instance.build((None, *shape))
    with pytest.raises(ConfigError, match=reason):
        Linear.of(instance)


def test_a_layer_without_weights_is_refused() -> None:
    for layer in (layers.Dense(4), layers.Conv2D(4, 3)):
        with pytest.raises(ConfigError, match="build the model first"):
            Linear.of(layer)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have:UserWarning")  # Keras' own
def test_a_quantized_layer_is_refused() -> None:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    model.quantize("int8")
    with pytest.raises(ConfigError, match="quantized"):
        Linear.of(model.layers[0])


def test_low_rank_updates_are_included() -> None:
    layer = build(layers.Dense(6), (8,))
    layer.enable_lora(2)
    layer.set_weights([np.random.default_rng(2).normal(size=w.shape) for w in layer.get_weights()])
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(Linear.of(layer)(x), np.asarray(layer(x)), rtol=1e-4, atol=1e-4)
