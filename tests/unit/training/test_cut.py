"""Head, layer and tail of a section that is cut compute what the section computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import make_configuration
from ddnn.training.blocks import Sign
from ddnn.training.cut import cut, find_cuttable
from ddnn.training.export import load_source, write_source
from ddnn.training.models import Architecture, Network

SMALL = Architecture(
    device_channels=(4, 6),
    device_map_side=8,
    device_bits=3,
    edge_channels=(6, 5),
    edge_bits=4,
    edge_dense=(24, 16),
    dropout=0.3,
    feature_dropout=0.2,
)


def randomize(model: Any, seed: int = 1) -> Any:
    """Give weights, biases and statistics random values, as if trained."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed" not in weight.path:
            low = 0.2 if "variance" in weight.path else -0.7
            weight.assign(generator.uniform(low, 1.0, weight.shape))
    return model


def make_edge(architecture: Architecture = SMALL, letter: str = "e") -> Any:
    network = Network(make_configuration(letter, 2), architecture, (32, 32, 3), 3)
    return randomize(network.edges["edge"])


def make_residual() -> Any:
    """Skip connections around two layers, one of them with another activation."""
    image = layers.Input((6, 6, 3))
    first = layers.Conv2D(4, 3, padding="same", activation="elu", name="first")(image)
    second = layers.Conv2D(4, 3, padding="same", name="second")(first)
    joined = layers.ReLU()(second + first * 0.5)
    narrow = layers.Conv2D(5, 3, strides=2, name="narrow")(joined)
    flat = layers.Concatenate()([layers.Flatten()(narrow), layers.Flatten()(image)])
    hidden = layers.Dense(9, activation="tanh", name="hidden")(flat)
    scores = layers.Dense(3, name="scores")(layers.Concatenate()([hidden, flat]))
    return randomize(keras.Model(image, [scores, joined]))


def make_sequential() -> Any:
    image = layers.Input((5, 5, 2))
    model = keras.Sequential(
        [
            image,
            layers.Conv2D(3, 2, dilation_rate=2, padding="same", use_bias=False, name="wide"),
            layers.Dense(4, activation=keras.activations.gelu, name="everywhere"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    return randomize(model)


MODELS = {
    "edge": make_edge,
    "edge without dropout": lambda: make_edge(Architecture(edge_dense=(16,))),
    "pooled edge": lambda: make_edge(Architecture(pooled_heads=True)),
    "skip connections": make_residual,
    "sequential": make_sequential,
}


@pytest.mark.parametrize("name", MODELS)
def test_head_layer_and_tail_equal_the_section(name) -> None:
    model = MODELS[name]()
    found = find_cuttable(model)
    linear = [x.name for x in model.layers if type(x) in (layers.Dense, layers.Conv2D)]
    assert {layer.name for layer in found} == set(linear)
    x = np.random.default_rng(2).normal(size=(3, *model.inputs[0].shape[1:])).astype(np.float32)
    expected = keras.tree.flatten(model(x, training=False))
    before = [np.asarray(weight).copy() for weight in model.weights]
    for layer in found:
        parts = cut(model, layer.name)
        head, *carries = keras.tree.flatten(parts.head([x], training=False))
        assert parts.layer.activation is keras.activations.linear
        got = parts.tail([parts.layer(head), *carries], training=False)
        for one, other in zip(keras.tree.flatten(got), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        assert parts.head_arrays == ("x", *(f"carry{i}" for i in range(len(carries))))
        assert parts.tail_arrays == ("z", *parts.head_arrays[1:])
        for part in (parts.head, parts.tail):  # only the workers compute the layer
            assert layer.name not in [other.name for other in part.layers]
    for weight, old in zip(model.weights, before, strict=True):
        assert (np.asarray(weight) == old).all()


def test_what_does_not_depend_on_the_layer_is_carried() -> None:
    model = make_edge()
    bits = cut(model, "dense1")  # the features for the cloud do not depend on it
    assert [tuple(t.shape[1:]) for t in bits.head.outputs] == [(80,), model.outputs[1].shape[1:]]
    assert len(cut(model, "conv1").head.outputs) == 1  # all outputs depend on it
    skips = cut(make_residual(), "second")
    assert [tuple(t.shape[1:]) for t in skips.head.outputs[1:]] == [(6, 6, 4), (108,)]


def test_layers_are_listed_by_their_flops() -> None:
    model = make_edge()
    found = {layer.name: layer for layer in find_cuttable(model)}
    assert next(iter(found)) == "conv1"
    assert [layer.flops for layer in found.values()] == sorted(
        (layer.flops for layer in found.values()), reverse=True
    )
    dense = found["dense1"]
    assert (dense.kind, dense.flops, dense.parameters) == ("dense", 2 * 80 * 24, 80 * 24 + 24)
    kernel = model.get_layer("conv2").kernel
    assert (found["conv2"].kind, found["conv2"].density) == ("conv2d", 1.0)
    assert found["conv2"].flops == 2 * 3 * 3 * 6 * 5 * 4 * 4
    half = np.asarray(kernel).copy()
    half.ravel()[::2] = 0
    kernel.assign(half)
    assert {x.name: x.density for x in find_cuttable(model)}["conv2"] == pytest.approx(
        0.5, abs=0.01
    )


class OwnDense(layers.Dense):
    """A user layer that computes something else."""

    def call(self, x: Any) -> Any:
        return super().call(x) ** 2


def test_a_refusal_lists_the_layers_that_can_be_cut() -> None:
    model = make_edge()
    expected = "those that can, heaviest first: conv1 .*, conv2 .*, dense1 .*, dense2"
    for name in ("conv3", "conv1_norm", ""):
        with pytest.raises(ConfigError, match=expected):
            cut(model, name)
    image = layers.Input((4, 4, 4))
    twice = layers.Dense(4, name="twice")
    x = twice(twice(image))
    x = layers.Conv2D(4, 3, groups=2, name="grouped")(x)
    x = layers.DepthwiseConv2D(1, name="depthwise")(x)
    x = layers.Dense(4, dtype="float16", name="half")(x)
    x = OwnDense(3, name="own")(layers.Flatten()(x))
    with pytest.raises(ConfigError, match="has none"):
        cut(keras.Model(image, x), "twice")
    with pytest.raises(ConfigError, match="has none"):  # binary layers are not Dense or Conv2D
        cut(make_edge(Architecture(style="binary")), "conv1")

    class Subclassed(keras.Model):
        pass

    with pytest.raises(ConfigError, match="functional"):
        find_cuttable(Subclassed())


def test_a_section_is_kept_and_cut_later(tmp_path: Path) -> None:
    for architecture in (SMALL, Architecture(style="binary")):
        model = make_edge(architecture)
        file = write_source(tmp_path, "edge", model)
        assert file == tmp_path / "edge.keras"
        loaded = load_source(file)
        x = np.random.default_rng(2).normal(size=(3, *model.inputs[0].shape[1:]))
        for one, other in zip(loaded(x, training=False), model(x, training=False), strict=True):
            np.testing.assert_array_equal(one, other)
        assert find_cuttable(loaded) == find_cuttable(model)
    signed = keras.Model(image := layers.Input((3,)), Sign()(image))
    assert write_source(tmp_path, "signed", signed)


def test_a_section_that_cannot_be_kept_has_no_source(tmp_path: Path, caplog) -> None:
    image = layers.Input((4,))
    lambdas = keras.Model(image, layers.Lambda(lambda x: x + 1)(image))
    unregistered = keras.Model(image, OwnDense(3)(image))
    for model in (lambdas, unregistered):
        caplog.clear()
        assert write_source(tmp_path, "own", model) is None
        assert "own: this section cannot be kept" in caplog.text
        assert not list(tmp_path.iterdir())
    broken = tmp_path / "edge.keras"
    for content in (b"", b"PK no archive", b"x" * 1000):
        broken.write_bytes(content)
        with pytest.raises(ConfigError, match="not of the format"):
            load_source(broken)
