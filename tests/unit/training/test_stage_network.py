"""Networks as lists of layers: built in parts, divided, by name, of users."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from ddnn.errors import ConfigError
from ddnn.training.models import Architecture, build_cloud_only
from ddnn.training.stages.divide import divide_model
from ddnn.training.stages.families import list_mobilenet, parse_network
from ddnn.training.stages.network import LayeredNetwork
from tests.unit.training.small_networks import CLASSES, SIDE, list_blocks

SHAPE = (SIDE, SIDE, 3)
USER = "tests.unit.training.test_stage_network:"


def read_weights(model: Any) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in model.weights]


def test_initial_weights_do_not_depend_on_what_else_is_built():
    whole = LayeredNetwork(list_blocks, SHAPE, CLASSES, seed=4).build(0, 3)
    keras.utils.set_random_seed(99)
    for number in (2, 0, 1):
        alone = LayeredNetwork(list_blocks, SHAPE, CLASSES, seed=4).build(number, number + 1)
        for a, b in zip(read_weights(whole[number]), read_weights(alone[0]), strict=True):
            np.testing.assert_array_equal(a, b)
    other = LayeredNetwork(list_blocks, SHAPE, CLASSES, seed=5).build(1, 2)
    assert not np.array_equal(read_weights(whole[1])[0], read_weights(other[0])[0])


def test_a_model_is_divided_before_each_kernel_but_not_inside_a_residual_block():
    image = layers.Input(SHAPE)
    x = layers.Rescaling(1 / 255)(image)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x)))
    y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(layers.Conv2D(4, 1)(x)))
    x = layers.MaxPooling2D(2)(layers.ReLU()(layers.Add()([x, y])))
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    model = keras.Model(image, layers.Dense(CLASSES)(x))
    parts = divide_model(model)
    kernels = [sum(len(w.shape) > 1 for w in part.weights) for part in parts]
    assert kernels == [1, 2, 1]
    assert [part.output.shape[1:] for part in parts] == [(8, 8, 4), (64,), (3,)]
    images = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype(np.float32)
    values = images
    for part in parts:
        values = np.asarray(part(values))
    np.testing.assert_allclose(values, np.asarray(model(images)), rtol=1e-5, atol=1e-6)


def test_the_cloud_section_of_ddnn_train_is_a_network():
    network = parse_network("cloud", SHAPE, CLASSES)
    expected = build_cloud_only(Architecture(), SHAPE, CLASSES)
    shapes = [w.shape for model in network.build(0, network.layers) for w in model.weights]
    assert shapes == [w.shape for w in expected.weights if "seed" not in w.path]
    assert network.layers == 5


def test_mobilenet_has_twenty_layers_that_end_in_scores():
    network = parse_network("mobilenet-0.25", (32, 32, 3), 10)
    models = network.build(0, 20)
    assert network.layers == len(models) == len(list_mobilenet((32, 32, 3), 10)) == 20
    sides = [model.output.shape[1] for model in models[:-1]]
    assert sides == [32, 32, 16, 16, 8, 8, 8, *[4] * 7, *[2] * 5]
    assert models[-1].output.shape == (None, 10)


def test_mlp_names_its_units():
    network = parse_network("mlp-6-5", SHAPE, CLASSES)
    assert [model.output.shape[1] for model in network.build(0, 3)] == [6, 5, CLASSES]


@pytest.mark.parametrize(
    "text", ["mobilenet-0", "mobilenet-x", "mlp-0", "resnet", USER + "nothing", "no.module:f", ""]
)
def test_unknown_networks_are_refused_with_what_there_is(text):
    with pytest.raises(ConfigError, match="expected"):
        parse_network(text, SHAPE, CLASSES)


def give_number(shape: Any, classes: int) -> Any:
    return 3


def give_wrong_scores(shape: Any, classes: int) -> Any:
    return [layers.Flatten(), layers.Dense(classes + 1)]


def give_two_outputs(shape: Any, classes: int) -> Any:
    image = layers.Input(shape)
    return keras.Model(image, [image, image])


def give_misfit(shape: Any, classes: int) -> Any:
    return [layers.Dense(4), layers.Conv2D(4, 9)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("give_number", "returned int; expected a functional keras.Model or a list"),
        ("give_wrong_scores", r"last layer gives \[4\]; expected scores \[3\]"),
        ("give_two_outputs", "2 outputs; expected one"),
        ("give_misfit", r"layer 1 cannot be built for inputs \[8, 8, 4\]"),
    ],
)
def test_wrong_networks_of_users_are_refused(name, message):
    def build() -> None:
        network = parse_network(USER + name, SHAPE, CLASSES)
        network.build(0, network.layers)

    with pytest.raises(ConfigError, match=message):
        build()


def test_layers_that_there_are_not_are_refused():
    network = LayeredNetwork(list_blocks, SHAPE, CLASSES)
    for start, stop in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(ConfigError, match="of a network of 3"):
            network.build(start, stop)
