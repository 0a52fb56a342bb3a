"""What students learn from: a teacher's inputs, the labels, and the teacher's feature maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddnn.exits.aggregate import Scheme
from ddnn.training.fit import Fit, Labels, draw_member_mask
from ddnn.training.fusion import fuse

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
BATCH = 256  # of computations without gradients
DROPPED = Fit()  # how many devices are absent, and how often


class Examples(Protocol):
    """A source of training batches."""

    def draw(
        self, generator: np.random.Generator, batch: int, /
    ) -> tuple[FloatArray, Labels, FloatArray]:
        """Inputs of the teacher float32 [batch, ...], labels int32 [batch], and the teacher's
        feature maps of these inputs float32 [batch, height, width, filters]."""
        ...


@dataclass(frozen=True, slots=True)
class CachedExamples:
    """Inputs that do not change, with the teacher's feature maps computed once."""

    inputs: FloatArray
    labels: Labels
    z: FloatArray

    @classmethod
    def of(cls, features: Any, inputs: FloatArray, labels: Labels) -> CachedExamples:
        """features: the teacher's Keras model, inputs -> z."""
        return cls(inputs, labels, compute_batches(features, inputs))

    def draw(
        self, generator: np.random.Generator, batch: int, /
    ) -> tuple[FloatArray, Labels, FloatArray]:
        rows = generator.integers(0, len(self.labels), batch)
        return self.inputs[rows], self.labels[rows], self.z[rows]


@dataclass(frozen=True)
class FusedExamples:
    """Fused features of devices, of which random ones are absent, as when the bundle was trained.

    devices: -1 and +1 [samples, devices, height, width, channels]; features: the teacher's
    Keras model, fused features -> z, which is computed for each batch: an absent device changes it.
    """

    devices: NDArray[np.int8 | np.uint8]
    labels: Labels
    scheme: Scheme
    features: Any
    settings: Fit = DROPPED
    _run: Callable[[Any, Any], tuple[Any, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        def run(values: Any, mask: Any) -> tuple[Any, Any]:
            fused = fuse(tf.cast(values, tf.float32), mask, self.scheme)
            return fused, self.features(fused, training=False)

        object.__setattr__(self, "_run", tf.function(run, reduce_retracing=True))

    def draw(
        self, generator: np.random.Generator, batch: int, /
    ) -> tuple[FloatArray, Labels, FloatArray]:
        rows = generator.integers(0, len(self.labels), batch)
        mask = draw_member_mask(generator, batch, self.devices.shape[1], self.settings)
        fused, z = self._run(tf.constant(self.devices[rows]), tf.constant(mask))
        return fused.numpy(), self.labels[rows], z.numpy()


def compute_batches(model: Any, inputs: FloatArray) -> FloatArray:
    """The output of a Keras model for many inputs, in batches."""
    run = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    parts = [run(inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
    return np.concatenate([np.asarray(part) for part in parts])
