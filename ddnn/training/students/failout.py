"""Answers without some portions: how they are filled, how the classifier learns it, what is lost.

Failout is dropping nodes in training (ResiliNet, Yousefpour et al., 2020). A filter of a missing
portion has one value at all positions:

- zero;
- mean: of the students' portions. For a classifier that is linear in z, the least-squares choice;
- learned: trained with the classifier, from the means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import prod
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddnn.training.students.distil import Phase, Training, train_phase
from ddnn.training.students.examples import BATCH, FloatArray
from ddnn.training.students.loss import compute_loss
from ddnn.training.students.unified import UnifiedStudent

Fill = Literal["zero", "mean", "learned"]
FILLS: tuple[Fill, ...] = get_args(Fill)
ALL_SETS_UP_TO = 8  # portions; of more, sets of few missing ones only
MOST_MISSING = 4
MEAN_BATCHES = 8

Accuracies = dict[int, dict[str, float]]
"""By the bit mask of missing portions, 0b101 the first and the third: accuracy by exit."""


@dataclass(frozen=True, slots=True)
class FilledStudent:
    """Students with a classifier that copes with missing portions. values: float32 [M]."""

    unified: UnifiedStudent
    fill: Fill
    values: FloatArray

    def fill_missing(self, z: FloatArray, missing: int) -> FloatArray:
        """z [..., M] with the values in place of the missing portions."""
        gone = np.array([bool(missing >> int(part) & 1) for part in self.unified.labels])
        return np.where(gone, self.values, z).astype(np.float32)


def fine_tune(
    unified: UnifiedStudent, fill: Fill, drop: Sequence[float], training: Training
) -> FilledStudent:
    """Train a copy of the classifier with each portion dropped with its probability `drop`.

    The students stay as they are. All portions of a sample may be dropped.
    """
    settings, classifier = training.settings, copy_model(unified.classifier)
    tuned = replace(unified, classifier=classifier)
    start = np.zeros(len(unified.labels), np.float32)
    if fill != "zero":
        start = compute_means(unified, training)
    values = tf.Variable(start, trainable=fill == "learned")
    chances = np.asarray(drop)

    def draw(generator: np.random.Generator) -> Sequence[Any]:
        kept = generator.random((settings.batch, len(chances))) >= chances
        return *training.draw(generator), kept.astype(np.float32)

    def compute(inputs: Any, labels: Any, z: Any, kept: Any) -> Any:
        whole = tuned.join(tuned.compute_portions(inputs))
        filters_kept = tf.gather(kept, tuned.labels, axis=1)[:, None, None, :]
        outputs = tuned.classify(whole * filters_kept + values * (1 - filters_kept), training=True)
        return compute_loss(labels, outputs, training.classify(z), (), (), settings.loss)

    learned = [values] if fill == "learned" else []
    what = f"dropping portions (fill {fill})"
    train_phase(
        Phase(
            f"classifier-{fill}", what, 1, settings.failout_steps, settings.failout_learning_rate
        ),
        draw,
        compute,
        [*classifier.trainable_variables, *learned],
        [*classifier.variables, *learned],
        training,
    )
    return FilledStudent(tuned, fill, values.numpy())


def compute_means(unified: UnifiedStudent, training: Training) -> FloatArray:
    """Each filter's mean over a few batches and all positions: [M]."""
    generator = np.random.default_rng((training.settings.seed, 2))
    sums = []
    for _ in range(MEAN_BATCHES):
        inputs, *_ = training.draw(generator)
        z = unified.join(unified.compute_portions(inputs))
        sums.append(np.asarray(tf.reduce_mean(z, [0, 1, 2])))
    return np.asarray(np.mean(sums, axis=0), np.float32)


def copy_model(model: Any) -> Any:
    """A copy with weights of its own."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def list_missing(portions: int) -> tuple[int, ...]:
    """The sets of missing portions that are measured, as bit masks, the fewest missing first."""
    most = portions if portions <= ALL_SETS_UP_TO else MOST_MISSING
    return tuple(
        sum(1 << part for part in parts)
        for missing in range(most + 1)
        for parts in combinations(range(portions), missing)
    )


def measure_missing(
    filled: FilledStudent,
    z: FloatArray,
    evaluate: Callable[[list[FloatArray]], Mapping[str, float]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracies:
    """The accuracy for every set of missing portions.

    z: the students' joined portions [samples, height, width, M]; evaluate: takes the classifier's
    outputs for all samples, and gives the accuracy by exit.
    """
    sets = list_missing(len(filled.unified.parts))
    run = tf.function(filled.unified.classify, reduce_retracing=True)
    table: Accuracies = {}
    for done, missing in enumerate(sets, 1):
        whole = filled.fill_missing(z, missing)
        parts = [run(whole[start : start + BATCH]) for start in range(0, len(whole), BATCH)]
        outputs = [np.concatenate([*map(np.asarray, part)]) for part in zip(*parts, strict=True)]
        table[missing] = dict(evaluate(outputs))
        progress(done, len(sets))
    return table


def expect_accuracy(table: Accuracies, exit_: str, outages: Sequence[float]) -> float:
    """The mean accuracy of an exit when portions are lost independently with these probabilities.

    Sets that were not measured are left out, and the others' probabilities scaled up.
    """
    chances = {missing: p_missing(missing, outages) for missing in table}
    total = sum(chances.values())
    return sum(p * table[missing][exit_] for missing, p in chances.items()) / total


def p_missing(missing: int, outages: Sequence[float]) -> float:
    """The probability that exactly these portions are lost."""
    return prod(q if missing >> part & 1 else 1 - q for part, q in enumerate(outages))


def choose_fill(
    unified: UnifiedStudent,
    drop: Sequence[float],
    inputs: FloatArray,
    labels: NDArray[np.int32],
    training: Training,
) -> FilledStudent:
    """The fill whose answers are expected to be the most accurate on validation data.

    inputs: of the teacher [samples, ...], with their labels. Portions count as lost with `drop`.
    """
    z = compute_joined(unified, inputs)

    def evaluate(outputs: list[FloatArray]) -> dict[str, float]:
        return {"scores": float(np.mean(outputs[0].argmax(-1) == labels))}

    def rate(filled: FilledStudent) -> float:
        return expect_accuracy(measure_missing(filled, z, evaluate), "scores", drop)

    return max((fine_tune(unified, fill, drop, training) for fill in FILLS), key=rate)


def compute_joined(unified: UnifiedStudent, inputs: FloatArray) -> FloatArray:
    """The joined portions for many inputs, [samples, height, width, M]."""
    run = tf.function(lambda x: unified.join(unified.compute_portions(x)), reduce_retracing=True)
    parts = [run(inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
    return np.concatenate([np.asarray(part) for part in parts])
