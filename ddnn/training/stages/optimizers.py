"""Optimizers of single layers: SGD with momentum, and Adam, with a schedule of learning rates."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import msgspec

_NOT_DECAYED = ["bias", "gamma", "beta"]


class OptimizerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of every layer's optimizer.

    momentum: of SGD. weight_decay: per step times the learning rate, of kernels only, not added to
    the gradient (Loshchilov, Hutter, 2019). steps: the learning rate falls to 0 over so many steps
    as a half cosine; None: it stays as it is.
    """

    method: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 4e-5
    warm_up_steps: int = 0
    steps: int | None = None


def compute_learning_rate(settings: OptimizerSettings, step: int) -> float:
    """The learning rate of the step with this number, from 0."""
    warm = min(1.0, (step + 1) / max(1, settings.warm_up_steps))
    if settings.steps is None:
        return settings.learning_rate * warm
    share = min(1.0, step / settings.steps)
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share))


def make_optimizer(settings: OptimizerSettings) -> Any:
    """A Keras optimizer. Each layer of a pipeline has its own.

    A layer that moves to another machine takes its own number of steps along, on which Adam's
    correction depends.
    """
    rate, decay = settings.learning_rate, settings.weight_decay or None
    if settings.method == "adam":
        made = keras.optimizers.Adam(rate, weight_decay=decay)
    else:
        made = keras.optimizers.SGD(rate, momentum=float(settings.momentum), weight_decay=decay)
    if decay:
        made.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return made
