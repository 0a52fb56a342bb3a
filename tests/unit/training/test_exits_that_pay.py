"""What makes deeper exits pay: statistics, last weights, distillation, and the advice."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tensorflow as tf

from ddnn.data import Dataset
from ddnn.exits.hierarchy import make_configuration
from ddnn.local_site.train import advise_on_exits
from ddnn.training import statistics
from ddnn.training.fit import Fit, compute_distillation_loss, fit
from ddnn.training.models import Architecture, Network
from ddnn.training.recipes import choose_recipe
from ddnn.training.statistics import estimate_statistics, improve_statistics, list_layers
from ddnn.training.train import make_batches
from tests.unit.exits.exit_builders import make_manifest

TINY = Architecture(device_channels=(4, 6), device_bits=3, edge_channels=(6,), cloud_channels=(6,))
QUICK = Fit(steps=3, batch=8)


def make_network(dataset: Dataset, **options) -> Network:
    tf.keras.utils.set_random_seed(1)
    architecture = msgspec.structs.replace(TINY, **options)
    return Network(make_configuration("e", 2), architecture, dataset.image_shape, 3)


@pytest.mark.parametrize("style", ["float", "binary"])
def test_estimated_statistics_are_those_of_clean_training_images(dataset: Dataset, style) -> None:
    """With the same images in every batch, inference then equals normalization by the batch."""
    network = make_network(dataset, style=style, cloud_channels=(4, 4), dropout=0.5)
    images = dataset.train.images[: statistics.BATCH, :2]
    labels = dataset.train.labels[: len(images)]
    count = len(images)

    def repeat(generator: np.random.Generator, batch: int):
        rows = np.arange(batch) % count
        return images[rows], labels[rows], dataset.train.view_labels[rows, :2]

    estimate_statistics(network, repeat, QUICK)
    x = tf.constant(images[np.arange(statistics.BATCH) % count].astype(np.float32))
    everyone = tf.ones((statistics.BATCH, 2))
    inferred = network(x, everyone, training=False)
    for layer in list_layers(network, tf.keras.layers.Dropout):
        assert layer.rate in (0.5, TINY.feature_dropout)  # as before
        layer.rate = 0.0
    for tier, scores in network(x, everyone, training=True).items():
        np.testing.assert_allclose(inferred[tier], scores, rtol=1e-3, atol=1e-3)


def test_statistics_are_kept_only_where_validation_data_say_so(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(dataset)
    before = [np.array(v) for model in network.models for v in model.weights]
    for accuracies, better in (([0.5, 0.5], False), ([0.5, 0.6], True)):
        measured = iter(accuracies)
        monkeypatch.setattr(statistics, "measure_exits", lambda *_, m=measured: next(m))
        batches = make_batches(dataset, 2)
        assert improve_statistics(network, batches, dataset.validation, QUICK) is better
        after = [np.array(v) for model in network.models for v in model.weights]
        same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert same is not better


def test_binary_weights_are_the_last_ones(dataset: Dataset) -> None:
    """An average over the last step alone is the same."""
    assert choose_recipe("scenes", style="binary").fit.average == 0
    assert choose_recipe("scenes").fit.average > 0
    weights = []
    for average in (0.0, 1e-12):
        network = make_network(dataset, style="binary")
        settings = msgspec.structs.replace(QUICK, average=average)
        fit(network, make_batches(dataset, 2), settings)
        weights.append([np.array(v) for m in network.models for v in m.trainable_weights])
    for last, averaged in zip(*weights, strict=True):
        np.testing.assert_allclose(last, averaged, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("deepest", [False, True])
def test_distillation_is_least_where_exits_answer_alike(deepest: bool) -> None:
    """Its gradient is zero there, and exits that are not to learn have none."""
    scores = tf.constant([[2.0, -1.0, 0.5], [0.0, 1.0, -3.0]])
    exits = {tier: tf.Variable(scores) for tier in ("device", "local", "edge", "cloud")}
    for other in (scores, scores + tf.constant([[1.0, 0.0, -1.0]])):
        with tf.GradientTape() as tape:
            loss = compute_distillation_loss(exits, other, Fit(distillation="teacher"), deepest)
        gradients = dict(zip(exits, tape.gradient(loss, list(exits.values())), strict=True))
        assert gradients["device"] is None
        assert (gradients["cloud"] is None) is not deepest
        for tier in ("local", "edge", *(["cloud"] if deepest else [])):
            largest = float(tf.reduce_max(tf.abs(gradients[tier])))
            assert largest < 1e-6 if other is scores else largest > 1e-3


@pytest.mark.parametrize("distillation", ["deepest", "teacher"])
def test_exits_learn_from_a_network(dataset: Dataset, distillation) -> None:
    settings = msgspec.structs.replace(QUICK, distillation=distillation)
    teacher = make_network(dataset) if distillation == "teacher" else None
    before = [np.array(v) for m in teacher.models for v in m.weights] if teacher else []
    loss = fit(make_network(dataset), make_batches(dataset, 2), settings, teacher=teacher)
    assert np.isfinite(loss)
    after = [np.array(v) for m in teacher.models for v in m.weights] if teacher else []
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_exit_that_does_not_pay_is_named_with_a_remedy() -> None:
    row = {"local": 0.9, "edge": 0.85, "cloud": 0.95, "overall": 0.94}
    (line,) = advise_on_exits(make_manifest("e", 3, accuracy={"7": row}))
    assert "the edge exit (85.0%) is not more accurate than the local exit (90.0%)" in line
    assert "--distillation teacher" in line
    assert "--section edge=" in line
    rising = {"local": 0.8, "edge": 0.85, "cloud": 0.95}
    assert advise_on_exits(make_manifest("e", 3, accuracy={"7": rising})) == []
    equal = {**rising, "cloud": 0.85}
    assert "cloud exit" in advise_on_exits(make_manifest("e", 3, accuracy={"7": equal}))[0]
