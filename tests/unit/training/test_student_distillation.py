"""The loss against its formula, students together against students alone, resuming, failout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ddnn.errors import ConfigError
from ddnn.training.checkpoints import Checkpoints, remove_checkpoints
from ddnn.training.split import FeatureSplit, split_features
from ddnn.training.students.distil import Distillation, Training, distil
from ddnn.training.students.examples import CachedExamples, FusedExamples
from ddnn.training.students.failout import (
    FilledStudent,
    choose_fill,
    compute_joined,
    expect_accuracy,
    fine_tune,
    list_missing,
    measure_missing,
)
from ddnn.training.students.family import Backbone, build_student
from ddnn.training.students.loss import LossWeights, compute_loss
from ddnn.training.students.unified import UnifiedStudent

FILTERS = ((4, 0), (1, 5, 3), (2,))


def make_teacher(classes: int = 3) -> FeatureSplit:
    keras.utils.set_random_seed(1)
    x = inputs = layers.Input((4, 4, 2))
    z = layers.ReLU()(layers.Conv2D(6, 3, padding="same", name="conv")(x))
    flat = layers.Flatten()(z)
    outputs = [layers.Dense(classes)(flat), layers.Conv2D(2, 1)(z)]
    return split_features(keras.Model(inputs, outputs))


def make_students(teacher: FeatureSplit, seed: int = 2) -> UnifiedStudent:
    keras.utils.set_random_seed(seed)
    students = tuple(
        build_student(Backbone("conv", 1, 4), (4, 4, 2), (4, 4, len(part))) for part in FILTERS
    )
    classifier = keras.models.clone_model(teacher.classifier)
    classifier.set_weights(teacher.classifier.get_weights())
    return UnifiedStudent(students, FILTERS, classifier)


def make_examples(teacher: FeatureSplit, samples: int = 256) -> CachedExamples:
    x = np.random.default_rng(3).normal(size=(samples, 4, 4, 2)).astype(np.float32)
    scores = teacher.classifier(teacher.features(x))[0]
    labels = np.argmax(scores, -1).astype(np.int32)
    return CachedExamples.of(teacher.features, x, labels)


def log_softmax(values):
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def test_the_loss_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([2, 0], np.int32)
    ours, theirs = rng.normal(size=(2, 2, 3)).astype(np.float32)
    extra, target = rng.normal(size=(2, 2, 4)).astype(np.float32)
    f_s, f_t = rng.normal(size=(2, 2, 1, 2, 5)).astype(np.float32)
    parts = [slice(0, 2), slice(2, 5)]
    weights = LossWeights(alpha=0.3, tau=2.5, beta=1.7, gamma=0.4)
    loss = compute_loss(
        labels,
        [ours, extra],
        [theirs, target],
        [f_s[..., part] for part in parts],
        [f_t[..., part] for part in parts],
        weights,
    )
    entropy = -log_softmax(ours)[[0, 1], labels].mean()
    log_p, log_q = log_softmax(theirs / 2.5), log_softmax(ours / 2.5)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    distances = []
    for part in parts:
        s, t = (f[..., part].reshape(2, -1) for f in (f_s, f_t))
        s, t = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (s, t))
        distances.append(((s - t) ** 2).sum(1).mean())
    expected = 0.7 * entropy + 0.3 * 2.5**2 * divergence + 1.7 * np.mean(distances)
    expected += 0.4 * ((extra - target) ** 2).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_portion_of_zeros_has_a_gradient() -> None:
    portion = tf.Variable(np.zeros((2, 1, 1, 3), np.float32))
    with tf.GradientTape() as tape:
        one = tf.ones((2, 3))
        loss = compute_loss([0, 1], [one], [one], [portion], [portion + 1.0], LossWeights())
    assert np.isfinite(tape.gradient(loss, portion)).all()


def test_the_unified_student_is_its_students_side_by_side() -> None:
    teacher = make_teacher()
    unified = make_students(teacher)
    x = np.random.default_rng(1).normal(size=(5, 4, 4, 2)).astype(np.float32)
    z = np.zeros((5, 4, 4, 6), np.float32)
    for student, filters in zip(unified.students, FILTERS, strict=True):
        z[..., list(filters)] = student(x)
    np.testing.assert_array_equal(unified.join(unified.compute_portions(x)), z)
    np.testing.assert_array_equal(compute_joined(unified, x), z)
    np.testing.assert_array_equal(unified(x)[0], unified.classifier(z)[0])
    np.testing.assert_array_equal(unified.join(unified.split(z)), z)
    assert unified.labels.tolist() == [0, 1, 2, 1, 0, 1]
    with pytest.raises(ConfigError, match="each of the 6 filters in one part"):
        replace(unified, filters=((4, 0), (1, 5, 3), (1,)))


def test_students_learn_the_teacher() -> None:
    teacher = make_teacher()
    unified, examples = make_students(teacher), make_examples(teacher)
    settings = Distillation(steps=150, batch=32, warm_up_steps=5)
    losses: list[tuple[str, int, int]] = []
    training = Training(teacher, examples, settings, progress=lambda *args: losses.append(args))
    distil(unified, training)
    assert losses[-1][1:] == (150, 150)
    fresh = np.random.default_rng(9).normal(size=(200, 4, 4, 2)).astype(np.float32)
    expected = np.argmax(teacher.classifier(teacher.features(fresh))[0], -1)
    assert np.mean(np.argmax(unified(fresh)[0], -1) == expected) > 0.65


class KilledError(Exception):
    pass


def test_a_training_that_was_killed_goes_on_as_if_not(tmp_path: Path) -> None:
    teacher = make_teacher()
    examples = make_examples(teacher, 64)
    settings = Distillation(
        steps=4, failout_steps=4, batch=8, warm_up_steps=2, checkpoint_steps=1, seed=5
    )

    def train(directory: Path, stop_at: tuple[str, int] | None, seed: int = 2) -> FilledStudent:
        def progress(what: str, done: int, total: int) -> None:
            if stop_at and what.startswith(stop_at[0]) and done == stop_at[1]:
                raise KilledError

        unified = make_students(teacher, seed)
        checkpoints = Checkpoints(directory, "job")
        training = Training(teacher, examples, settings, checkpoints, progress)
        distil(unified, training)
        return fine_tune(unified, "learned", (0.5, 0.2, 0.2), training)

    whole = train(tmp_path / "whole", None)
    for phase in ("distilling", "dropping"):
        with pytest.raises(KilledError):
            train(tmp_path / "killed", (phase, 2))
    resumed = train(tmp_path / "killed", None, seed=99)  # other first weights: all are loaded
    for one, other in zip(resumed.unified.variables, whole.unified.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(resumed.values, whole.values)
    assert (whole.values > 0).any()


def test_checkpoints_of_another_job_or_damaged_ones_are_not_resumed(tmp_path: Path) -> None:
    variable = tf.Variable([1.0, 2.0])
    Checkpoints(tmp_path, "job").save("students", [variable], 7)
    variable.assign([0.0, 0.0])
    assert Checkpoints(tmp_path, "other").load("students", [variable]) == 0
    assert Checkpoints(tmp_path, "job").load("classifier", [variable]) == 0
    assert variable.numpy().tolist() == [0.0, 0.0]
    assert Checkpoints(tmp_path, "job").load("students", [variable]) == 7
    assert variable.numpy().tolist() == [1.0, 2.0]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    assert Checkpoints(tmp_path, "job").load("students", [variable]) == 0
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_failout_improves_the_worst_missing_portion() -> None:
    """Both portions show the class, but the classifier trusts the first and misreads the second."""

    def pick(channel: int) -> Any:
        x = layers.Input((1, 1, 2))
        student = keras.Model(x, layers.Conv2D(1, 1, use_bias=False)(x))
        student.set_weights([np.eye(2)[:, [channel]].reshape(1, 1, 2, 1)])
        return student

    z = layers.Input((1, 1, 2))
    classifier = keras.Model(z, [layers.Dense(2)(layers.Flatten()(z))])
    classifier.set_weights([np.array([[-9.0, 9.0], [1.0, -1.0]]), np.zeros(2)])
    unified = UnifiedStudent((pick(0), pick(1)), ((0,), (1,)), classifier)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 512).astype(np.int32)
    x = (2.0 * labels[:, None] - 1 + rng.normal(size=(512, 2)) * [0.1, 0.5]).astype(np.float32)
    examples = CachedExamples(x[:, None, None], labels, x[:, None, None])
    settings = Distillation(
        failout_steps=200, failout_learning_rate=3e-2, batch=64, loss=LossWeights(alpha=0)
    )
    training = Training(FeatureSplit(unified, classifier), examples, settings)

    def evaluate(outputs):
        return {"edge": float(np.mean(outputs[0].argmax(-1) == labels))}

    def tune(drop: float) -> Any:
        filled = fine_tune(unified, "learned", (drop, drop), training)
        return filled, measure_missing(filled, compute_joined(unified, x[:, None, None]), evaluate)

    _, without = tune(0.0)
    filled, table = tune(0.25)
    assert list(table) == [0, 1, 2, 3]
    assert min(row["edge"] for row in without.values()) == without[1]["edge"] < 0.6
    assert table[1]["edge"] > 0.9
    assert table[0]["edge"] == without[0]["edge"] == 1
    # With everything missing the answer is the same for all: that of the filled classifier.
    answer = np.argmax(filled.unified.classify(filled.values[None, None, None])[0])
    assert table[3]["edge"] == np.mean(labels == answer)


def test_missing_portions_are_filled_by_filter() -> None:
    unified = make_students(make_teacher())
    filled = FilledStudent(unified, "mean", np.arange(10.0, 16.0, dtype=np.float32))
    z = np.zeros((1, 1, 1, 6), np.float32)
    assert filled.fill_missing(z, 0b101).ravel().tolist() == [10, 0, 12, 0, 14, 0]
    assert filled.fill_missing(z, 0).any() == np.False_


def test_sets_of_missing_portions_and_what_they_make_likely() -> None:
    assert list_missing(2) == (0, 1, 2, 3)
    assert len(list_missing(8)) == 256
    assert len(list_missing(9)) == 1 + 9 + 36 + 84 + 126
    table = {0: {"edge": 1.0}, 1: {"edge": 0.5}, 2: {"edge": 0.25}, 3: {"edge": 0.0}}
    expected = 0.9 * 0.8 + 0.1 * 0.8 * 0.5 + 0.9 * 0.2 * 0.25
    assert expect_accuracy(table, "edge", (0.1, 0.2)) == pytest.approx(expected)


def test_the_best_fill_is_chosen() -> None:
    teacher = make_teacher()
    unified, examples = make_students(teacher), make_examples(teacher, 64)
    settings = Distillation(failout_steps=2, batch=8)
    drop = (0.3, 0.3, 0.3)
    training = Training(teacher, examples, settings)
    chosen = choose_fill(unified, drop, examples.inputs, examples.labels, training)
    z = compute_joined(unified, examples.inputs)

    def evaluate(outputs):
        return {"scores": float(np.mean(outputs[0].argmax(-1) == examples.labels))}

    rates = {}
    for fill in ("zero", "mean", "learned"):
        filled = fine_tune(unified, fill, drop, training)
        rates[fill] = expect_accuracy(measure_missing(filled, z, evaluate), "scores", drop)
    assert rates[chosen.fill] == max(rates.values())
    assert len(set(rates.values())) > 1


def test_absent_devices_are_drawn_and_the_teacher_sees_the_same() -> None:
    teacher = make_teacher()
    devices = np.where(np.random.default_rng(1).random((20, 2, 4, 4, 1)) < 0.5, -1, 1)
    labels = np.arange(20, dtype=np.int32)
    examples = FusedExamples(devices.astype(np.int8), labels, "CC", teacher.features)
    fused, drawn, z = examples.draw(np.random.default_rng(2), 64)
    again = examples.draw(np.random.default_rng(2), 64)
    assert all(np.array_equal(*pair) for pair in zip((fused, drawn, z), again, strict=True))
    np.testing.assert_allclose(z, teacher.features(fused), rtol=1e-5, atol=1e-5)
    absent = (fused == 0).all((1, 2))  # [samples, devices]
    assert 0 < absent.mean() < 0.5
    assert not absent.all(1).any()
    whole = np.concatenate([devices[drawn, 0], devices[drawn, 1]], -1)
    np.testing.assert_array_equal(np.where(fused == 0, whole, fused), whole)
