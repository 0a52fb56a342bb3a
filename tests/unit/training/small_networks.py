"""Small networks with all that a layer can have, and batches for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from ddnn.data.dataset import Dataset, Split, label_views
from ddnn.training.stages.factory import KerasStages, read_states
from ddnn.training.stages.network import LayeredNetwork
from ddnn.training.stages.stage import KerasStage

SIDE, CLASSES, BATCH = 8, 3, 6


def list_blocks(shape: tuple[int, ...], classes: int, *, dropout: float = 0.0) -> list[Any]:
    """A convolution, a residual block with a regularizer, a classifier with dropout."""
    return [
        keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(4, 3, 2, activation="relu")]),
        make_residual,
        keras.Sequential([layers.Flatten(), layers.Dropout(dropout), layers.Dense(classes)]),
    ]


def list_dropped(shape: tuple[int, ...], classes: int) -> list[Any]:
    """The same with dropout."""
    return list_blocks(shape, classes, dropout=0.5)


def make_residual(shape: tuple[int, ...]) -> Any:
    inputs = layers.Input(shape)
    regularizer = keras.regularizers.L2(0.01)
    y = layers.Conv2D(shape[-1], 3, padding="same", kernel_regularizer=regularizer)(inputs)
    y = layers.BatchNormalization(momentum=0.8)(y)
    return keras.Model(inputs, layers.Add()([inputs, layers.ReLU()(y)]))


def list_dense(shape: tuple[int, ...], classes: int) -> list[Any]:
    return [
        layers.Dense(5, activation="tanh"),
        layers.Dense(4, activation="tanh"),
        layers.Dense(classes),
    ]


def make_stages(make: Any = list_blocks, shape: Any = (SIDE, SIDE, 3), **options) -> KerasStages:
    return KerasStages(LayeredNetwork(make, shape, CLASSES), **options)


def draw_dataset() -> Dataset:
    """Two cameras; the class is the brightest of the three colours."""
    generator = np.random.default_rng(0)

    def draw(name: str, count: int) -> Split:
        labels = (np.arange(count) % CLASSES).astype(np.int32)
        images = generator.integers(1, 128, (count, 2, SIDE, SIDE, 3), np.uint8)
        images[np.arange(count), :, :, :, labels] += 100
        return Split(name, images, labels, label_views(images, labels), labels)

    splits = draw("train", 60), draw("validation", 20), draw("test", 10)
    return Dataset("colours", ("red", "green", "blue"), *splits)


def draw_batches(count: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number, images and labels of each batch."""
    generator = np.random.default_rng(3)
    for number in range(count):
        images = generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
        yield number, images, generator.integers(0, CLASSES, BATCH).astype(np.int32)


def train(stages: list[KerasStage], count: int, start: int = 0) -> list[float]:
    """Train synchronously with the batches start, start + 1, …; the losses."""
    losses = []
    for number, images, labels in list(draw_batches(count))[start:]:
        values = images
        for stage in stages[:-1]:
            values = stage.forward(number, values)
        result = stages[-1].train_last(number, values, labels)
        gradient = result.gradient
        for stage in reversed(stages[:-1]):
            gradient = stage.backward(number, gradient)
        for stage in stages:
            stage.apply()
        losses.append(result.loss)
    return losses


def assert_same(stages: list[KerasStage], others: list[KerasStage]) -> None:
    """All layers have the same states, bit for bit."""
    left, right = read_states(stages), read_states(others)
    assert left.keys() == right.keys()
    for layer, state in left.items():
        assert state.keys() == right[layer].keys()
        for name, value in state.items():
            np.testing.assert_array_equal(value, right[layer][name], f"{layer} {name}")
