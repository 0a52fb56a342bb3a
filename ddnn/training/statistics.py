"""Estimation of the statistics of batch normalization on training data as it is, after training.

While a network trains, the running means and variances follow weights that still change, of images
that are augmented, with members absent. Weights that are averaged, and binary ones above all, have
other activations than any that were met.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers

from ddnn.training import augment
from ddnn.training.fit import Batches, Fit, SplitLike
from ddnn.training.models import Network

BATCHES, BATCH = 12, 64
PIECE = 250  # samples whose scores are computed at once


def improve_statistics(
    network: Network, batches: Batches, validation: SplitLike, settings: Fit
) -> bool:
    """Estimate the statistics again, and keep what is more accurate on validation data.

    Returns whether the new ones are kept.
    """
    before = measure_exits(network, validation)
    saved = [np.array(value) for value in _list_statistics(network)]
    estimate_statistics(network, batches, settings)
    better = measure_exits(network, validation) > before
    if not better:
        for variable, value in zip(_list_statistics(network), saved, strict=True):
            variable.assign(value)
    return better


def estimate_statistics(network: Network, batches: Batches, settings: Fit) -> None:
    """Replace the running statistics by means over batches with all members and no augmentation."""
    generator = np.random.default_rng(settings.seed)
    members, size = len(network.hierarchy.devices), network.image_shape[:2]
    everyone = tf.ones((BATCH, members))
    with _without_dropout(network):
        for number in range(min(BATCHES, settings.steps)):
            images, _, _ = batches(generator, BATCH)
            numbers = augment.draw(generator, augment.NONE, BATCH, members, size, images.shape[2:4])
            x = augment.apply(tf.constant(images), numbers, 0.0, network.image_shape)
            for layer in list_layers(network, layers.BatchNormalization):
                layer.momentum = number / (number + 1)  # so that all batches count alike
            network(x, everyone, training=True)


def measure_exits(network: Network, split: SplitLike) -> float:
    """The mean accuracy of the exits that fuse, with all members present."""
    members = len(network.hierarchy.devices)
    images = split.images[:, :members]
    correct = 0
    for start in range(0, len(split.labels), PIECE):
        part = slice(start, start + PIECE)
        x = tf.constant(images[part].astype(np.float32))
        exits = network(x, tf.ones((len(x), members)), training=False)
        for tier in network.hierarchy.exits:
            correct += int((np.asarray(exits[tier]).argmax(-1) == split.labels[part]).sum())
    return correct / (len(split.labels) * len(network.hierarchy.exits))


def list_layers(network: Network, kind: type) -> list[Any]:
    """The layers of this kind of all sections, also of models within them."""
    found: list[Any] = []
    waiting = list(network.models)
    while waiting:
        layer = waiting.pop()
        waiting += getattr(layer, "layers", [])
        if isinstance(layer, kind):
            found.append(layer)
    return found


def _list_statistics(network: Network) -> list[Any]:
    found = list_layers(network, layers.BatchNormalization)
    return [v for layer in found for v in (layer.moving_mean, layer.moving_variance)]


@contextmanager
def _without_dropout(network: Network) -> Iterator[None]:
    found = [(layer, layer.rate) for layer in list_layers(network, layers.Dropout)]
    momenta = [(layer, layer.momentum) for layer in list_layers(network, layers.BatchNormalization)]
    try:
        for layer, _ in found:
            layer.rate = 0.0
        yield
    finally:
        for layer, rate in found:
            layer.rate = rate
        for layer, momentum in momenta:
            layer.momentum = momentum
