"""Training of students: all together from the teacher, then the classifier with portions dropped.

A step draws with a generator of its own, from the seed and its number: a training that was killed
and goes on from its checkpoint gives the weights of one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras
import msgspec
import numpy as np
import tensorflow as tf

from ddnn.training.checkpoints import Checkpoints
from ddnn.training.split import FeatureSplit
from ddnn.training.students.examples import Examples
from ddnn.training.students.loss import LossWeights, compute_loss
from ddnn.training.students.unified import UnifiedStudent

Progress = Callable[[str, int, int], None]
Draw = Callable[[np.random.Generator], Sequence[Any]]


def ignore(what: str, done: int, total: int) -> None:
    """A progress that shows nothing."""


class Distillation(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a distillation: AdamW with a cosine schedule.

    failout: settings of the second phase, which trains the final layers. least_drop: the least
    probability with which a portion is dropped in it. A portion is dropped with its group's outage
    probability; where that is small, few samples would show what the answer is without it.
    """

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 3e-3
    warm_up_steps: int = 30
    weight_decay: float = 1e-3
    loss: LossWeights = LossWeights()
    failout_steps: int = 300
    failout_learning_rate: float = 1e-3
    least_drop: float = 0.1
    checkpoint_steps: int = 100
    seed: int = 0


class Phase(NamedTuple):
    """A part of a training. name: of its checkpoint; what: for progress; number: of its seed."""

    name: str
    what: str
    number: int
    steps: int
    learning_rate: float


class Setup(Protocol):
    """What every phase needs. progress(what, done, total) is called after every step."""

    @property
    def settings(self) -> Distillation: ...
    @property
    def checkpoints(self) -> Checkpoints | None: ...
    @property
    def progress(self) -> Progress: ...


@dataclass(frozen=True, slots=True)
class Training:
    """What students are trained with; a Setup."""

    teacher: FeatureSplit
    examples: Examples
    settings: Distillation
    checkpoints: Checkpoints | None = None
    progress: Progress = ignore

    def classify(self, z: Any) -> list[Any]:
        """What the teacher makes of its feature map: scores and further outputs."""
        return list(keras.tree.flatten(self.teacher.classifier(z, training=False)))

    def draw(self, generator: np.random.Generator) -> tuple[Any, ...]:
        """A batch of the examples."""
        return self.examples.draw(generator, self.settings.batch)


def distil(unified: UnifiedStudent, training: Training) -> float:
    """Train students and classifier in place; the mean loss of the last tenth of the steps."""
    settings = training.settings

    def compute(inputs: Any, labels: Any, z: Any) -> Any:
        portions = unified.compute_portions(inputs, training=True)
        outputs = unified.classify(unified.join(portions), training=True)
        targets, parts = training.classify(z), unified.split(z)
        return compute_loss(labels, outputs, targets, portions, parts, settings.loss)

    models = (*unified.students, unified.classifier)
    return train_phase(
        Phase("students", "distilling students", 0, settings.steps, settings.learning_rate),
        training.draw,
        compute,
        [variable for model in models for variable in model.trainable_variables],
        unified.variables,
        training,
    )


def train_phase(
    phase: Phase,
    draw: Draw,
    compute: Callable[..., Any],
    trained: Sequence[Any],
    saved: Sequence[Any],
    training: Setup,
) -> float:
    """Minimize compute(*draw(generator)) over the variables `trained`; the mean loss of the last
    tenth of the steps, 0 where all of them were done before.

    saved: all variables that a step changes, for the checkpoint.
    """
    settings, checkpoints = training.settings, training.checkpoints
    optimizer = keras.optimizers.AdamW(
        phase.learning_rate, weight_decay=settings.weight_decay, beta_2=0.99
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(list(trained))
    state = [*saved, *optimizer.variables]
    first = checkpoints.load(phase.name, state) if checkpoints else 0

    @tf.function  # type: ignore[untyped-decorator]
    def step(*batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = compute(*batch)
        gradients = tape.gradient(loss, list(trained))
        pairs = [(g, v) for g, v in zip(gradients, trained, strict=True) if g is not None]
        optimizer.apply_gradients(pairs)
        return loss

    losses: list[float] = []
    for number in range(first, phase.steps):
        warm = min(1.0, (number + 1) / settings.warm_up_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * number / phase.steps))
        optimizer.learning_rate.assign(phase.learning_rate * warm * cosine)
        generator = np.random.default_rng((settings.seed, phase.number, number))
        losses.append(float(step(*map(tf.constant, draw(generator)))))
        done = number + 1
        if checkpoints and (done % settings.checkpoint_steps == 0 or done == phase.steps):
            checkpoints.save(phase.name, state, done)
        training.progress(f"{phase.what}, loss {losses[-1]:.3f}", done, phase.steps)
    last = losses[-max(1, phase.steps // 10) :]
    return float(np.mean(last)) if last else 0.0
