"""Stages compute what the undivided network computes, with the weights that they must use."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from ddnn.errors import ConfigError, LocalProtocolError
from ddnn.training.stages.optimizers import OptimizerSettings, compute_learning_rate
from tests.unit.training.small_networks import (
    BATCH,
    CLASSES,
    SIDE,
    assert_same,
    draw_batches,
    list_dense,
    list_dropped,
    make_stages,
    train,
)

SGD = OptimizerSettings(learning_rate=0.05, weight_decay=0.01)
ADAM = OptimizerSettings(method="adam", learning_rate=0.01, weight_decay=0)


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_one_stage_is_plain_training_bit_for_bit(settings):
    stages = make_stages(optimizer=settings)
    stage = stages.build(0, stages.layers)
    losses = train([stage], 3)

    if settings is ADAM:
        optimizer = keras.optimizers.Adam(0.01)
    else:
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    plain = keras.Sequential(stages.network.build(0, stages.layers))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(optimizer, loss, jit_compile=False)
    for _, images, labels in draw_batches(3):
        plain.train_on_batch(images.astype(np.float32), labels)

    trained = [stage.read_layer(layer) for layer in range(stages.layers)]
    for kind, variables in (
        ("weight", plain.trainable_weights),
        ("buffer", plain.non_trainable_weights),
    ):
        ours = [v for state in trained for name, v in state.items() if name.startswith(kind)]
        assert len(ours) == len(variables) > 0
        for value, variable in zip(ours, variables, strict=True):
            np.testing.assert_array_equal(value, np.asarray(variable), variable.path)
    assert len(losses) == 3


def test_a_synchronous_pipeline_is_serial_training_bit_for_bit():
    stages = make_stages(list_dropped, optimizer=SGD)
    whole = [stages.build(0, 3)]
    parts = [stages.build(0, 1), stages.build(1, 2), stages.build(2, 3)]
    assert train(whole, 3) == train(parts, 3)
    assert_same(whole, parts)


def test_micro_batches_sum_up_to_the_gradients_of_the_batch():
    stages = make_stages(list_dense, (4,), optimizer=SGD)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH, 4)).astype(np.float32)
    labels = generator.integers(0, CLASSES, BATCH).astype(np.int32)
    whole = stages.build(0, 3)
    whole.train_last(0, x, labels)
    whole.apply()
    first, last = stages.build(0, 2), stages.build(2, 3)
    half = BATCH // 2
    for number in (0, 1):
        part = slice(number * half, (number + 1) * half)
        result = last.train_last(number, first.forward(number, x[part]), labels[part], 0.5)
        first.backward(number, result.gradient)
    first.apply()
    last.apply()
    for layer in range(3):
        for name, value in whole.read_layer(layer).items():
            ours = (first if layer < 2 else last).read_layer(layer)[name]
            np.testing.assert_allclose(ours, value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_backward_uses_the_weights_of_its_forward(recompute):
    """PipeDream's rule with n versions: w(t+1) = w(t) - rate * gradient(w(t-n+1))."""
    rate, versions, batches = 0.5, 3, 7
    settings = OptimizerSettings(learning_rate=rate, momentum=0, weight_decay=0)
    stages = make_stages(list_dense, (4,), optimizer=settings, recompute=recompute)
    stage = stages.build(1, 2)
    state = stage.read_layer(1)
    weights = [(state["weight0"], state["weight1"])]  # w(0), w(1), …
    generator = np.random.default_rng(1)
    inputs = generator.normal(size=(batches, BATCH, 5)).astype(np.float32)
    gradients = generator.normal(size=(batches, BATCH, 4)).astype(np.float32)

    outputs: dict[int, np.ndarray] = {}
    for batch in range(versions):
        outputs[batch] = stage.forward(batch, inputs[batch])
    for batch in range(batches):
        of_inputs = stage.backward(batch, gradients[batch])
        stage.apply()
        kernel, bias = weights[max(0, batch - versions + 1)]
        y = np.tanh(inputs[batch] @ kernel + bias)
        before = gradients[batch] * (1 - y**2)
        np.testing.assert_allclose(outputs[batch], y, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(of_inputs, before @ kernel.T, rtol=1e-4, atol=1e-5)
        newest = weights[-1]
        step = inputs[batch].T @ before, before.sum(0)
        weights.append((newest[0] - rate * step[0], newest[1] - rate * step[1]))
        after = stage.read_layer(1)
        np.testing.assert_allclose(after["weight0"], weights[-1][0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(after["weight1"], weights[-1][1], rtol=1e-4, atol=1e-4)
        if batch + versions < batches:
            outputs[batch + versions] = stage.forward(batch + versions, inputs[batch + versions])


def test_recomputed_batches_get_the_same_random_numbers_and_change_statistics_once():
    kept = make_stages(list_dropped, optimizer=ADAM)
    again = make_stages(list_dropped, optimizer=ADAM, recompute=True)
    pipelines = [[stages.build(0, 3)] for stages in (kept, again)]
    generator = np.random.default_rng(5)
    gradient = generator.normal(size=(BATCH, CLASSES)).astype(np.float32)
    results = []
    for (stage,) in pipelines:
        outputs = [stage.forward(number, images) for number, images, _ in draw_batches(2)]
        for number in (0, 1):
            stage.backward(number, gradient)
            stage.apply()
        results.append(outputs)
    np.testing.assert_array_equal(results[0], results[1])
    for layer in range(3):
        for name, value in pipelines[0][0].read_layer(layer).items():
            ours = pipelines[1][0].read_layer(layer)[name]
            np.testing.assert_allclose(ours, value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_dropout_depends_on_the_batch():
    stage = make_stages(list_dropped).build(2, 3)
    inputs = np.ones((BATCH, 3, 3, 4), np.float32)
    first, second = (stage.forward(batch, inputs) for batch in (0, 1))
    stage.discard()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, stage.forward(0, inputs))


def test_aggregation_is_the_mean_of_the_latest_versions():
    stage = make_stages(list_dense, (4,)).build(2, 3, keep=3)
    inputs, labels = np.ones((BATCH, 4), np.float32), np.zeros(BATCH, np.int32)
    versions = [stage.read_layer(2)["weight0"]]
    for batch in range(4):
        stage.train_last(batch, inputs, labels)
        stage.apply()
        versions.append(stage.read_layer(2)["weight0"])
    stage.aggregate(3)
    after = stage.read_layer(2)["weight0"]
    np.testing.assert_allclose(after, np.mean(versions[-3:], 0), rtol=1e-6)
    stage.aggregate(1)
    np.testing.assert_array_equal(after, stage.read_layer(2)["weight0"])
    with pytest.raises(LocalProtocolError, match="build it to keep more"):
        stage.aggregate(4)


def test_a_forward_uses_the_version_that_it_names():
    stages = make_stages(list_dense, (4,), optimizer=SGD)
    stage = stages.build(1, 2, version=7, keep=2)
    inputs, gradient = np.ones((BATCH, 5), np.float32), np.ones((BATCH, 4), np.float32)
    first = stage.forward(0, inputs, 7)
    stage.backward(0, gradient)
    stage.apply()
    newest = stage.forward(1, inputs)
    assert not np.array_equal(first, newest)
    np.testing.assert_array_equal(first, stage.forward(2, inputs, 7))
    np.testing.assert_array_equal(newest, stage.forward(3, inputs, 8))
    stage.backward(1, gradient)
    stage.apply()
    for unknown in (7, 10):
        with pytest.raises(LocalProtocolError, match="this stage has 8 to 9"):
            stage.forward(4, inputs, unknown)


def test_a_batch_in_flight_is_not_computed_twice():
    stage = make_stages().build(1, 2)
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(BATCH, 3, 3, 4)).astype(np.float32)
    outputs = stage.forward(0, inputs)
    statistics = stage.read_layer(1)["buffer0"]
    np.testing.assert_array_equal(outputs, stage.forward(0, inputs))
    np.testing.assert_array_equal(statistics, stage.read_layer(1)["buffer0"])


def test_the_learning_rate_follows_the_version():
    settings = OptimizerSettings(
        learning_rate=1.0, momentum=0, weight_decay=0, warm_up_steps=2, steps=4
    )
    stage = make_stages(list_dense, (4,), optimizer=settings).build(1, 2, version=2)
    inputs, gradient = np.zeros((1, 5), np.float32), np.ones((1, 4), np.float32)
    before = stage.read_layer(1)["weight1"]
    rates = [compute_learning_rate(settings, step) for step in range(6)]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 4)) for step in range(5)]
    np.testing.assert_allclose(rates, [0.5 * cosine[0], *cosine[1:], 0.0], atol=1e-12)
    stage.forward(0, inputs)
    stage.backward(0, gradient)
    stage.apply()
    step = before - stage.read_layer(1)["weight1"]
    np.testing.assert_allclose(step, rates[2] * (1 - np.tanh(before) ** 2), rtol=1e-5)


def test_calls_out_of_order_are_refused_and_discard_forgets():
    stage = make_stages(list_dense, (4,)).build(1, 2)
    inputs = np.ones((BATCH, 5), np.float32)
    gradient = np.ones((BATCH, 4), np.float32)
    with pytest.raises(LocalProtocolError, match="no forward"):
        stage.backward(0, gradient)
    with pytest.raises(LocalProtocolError, match="without a backward"):
        stage.apply()
    stage.forward(0, inputs)
    stage.backward(0, gradient)
    stage.forward(1, inputs)
    stage.discard()
    with pytest.raises(LocalProtocolError, match="no forward"):
        stage.backward(1, gradient)
    with pytest.raises(LocalProtocolError, match="without a backward"):
        stage.apply()
    with pytest.raises(LocalProtocolError, match="layer 2 of a stage"):
        stage.read_layer(2)


def test_states_of_another_network_are_refused():
    stages = make_stages(list_dense, (4,))
    state = dict(stages.build(1, 2).read_layer(1))
    for wrong in (
        {name: value for name, value in state.items() if name != "weight1"},
        {**state, "weight0": state["weight0"].T},
        {**state, "weight0": state["weight0"].astype(np.float64)},
    ):
        with pytest.raises(ConfigError, match="of another network or optimizer"):
            stages.build(1, 2, {1: wrong})


def test_a_profile_has_times_and_sizes_of_each_layer():
    ticks = iter(range(1000))
    stages = make_stages(clock=lambda: float(next(ticks)))
    _, images, labels = next(draw_batches(1))
    profiles = stages.profile(images, labels)
    whole = stages.build(0, 3)
    for layer, profile in enumerate(profiles):
        state = whole.read_layer(layer)
        assert profile.state_bytes == sum(value.nbytes for value in state.values())
        assert (profile.forward_s, profile.backward_s) == (1.0, 1.0)
    inner = (SIDE - 2) // 2
    assert [profile.output_bytes for profile in profiles] == [
        4 * BATCH * inner * inner * 4,
        4 * BATCH * inner * inner * 4,
        4 * BATCH * CLASSES,
    ]
