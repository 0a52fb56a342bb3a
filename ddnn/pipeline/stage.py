"""The interface of a stage: consecutive layers of a network, trained in one place.

The network is a list of layers. A stage holds the layers from `start` up to but not including
`stop`. What framework computes them is not known here: `ddnn.training` implements stages in Keras.

Arrays have a batch axis: `inputs` [samples, ...]. One object is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ddnn.core.section import Array

LayerState = Mapping[str, Array]
"""Everything that training needs of one layer, by name: weights, buffers (such as the statistics of
batch normalization) and the optimizer's slots. Empty where the layer has no state."""

States = Mapping[int, LayerState]
"""States of layers by the layer's number."""


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """What one layer costs for one batch, measured on the central node.

    output_bytes: of its output for the batch as it travels. state_bytes: of its LayerState.
    """

    forward_s: float
    backward_s: float
    output_bytes: int
    state_bytes: int


@dataclass(frozen=True, slots=True)
class LastResult:
    """What the last stage gives for a batch.

    gradient: with regard to its inputs; None where its start is 0. loss: the mean over the samples.
    correct: how many of the samples are classified correctly.
    """

    gradient: Array | None
    loss: float
    correct: int
    samples: int


class Stage(Protocol):
    """Consecutive layers, with weights that are stashed for the batches in flight.

    Weight versions are numbered: version v is that after v optimizer steps (calls of `apply`).
    Everything random (dropout) is a function of the seed, the batch and the layer, so that a batch
    that is computed again gives the same bits, whatever stage its layers are in.
    """

    start: int
    stop: int

    def forward(self, batch: int, inputs: Array, version: int | None = None) -> Array:
        """The outputs for a batch; its weights stay stashed until its `backward`.

        version: the weights to use, one of the latest `keep` of StageFactory.build; None: the
        latest. A batch that is in flight already is computed again with the version it has.
        """
        ...

    def backward(self, batch: int, gradient: Array) -> Array | None:
        """Accumulate the gradients of a batch, with the weight version of its forward.

        Returns the gradient with regard to the inputs; None where start is 0. The batch is no
        longer in flight then.
        """
        ...

    def train_last(
        self,
        batch: int,
        inputs: Array,
        labels: Array,
        weight: float = 1.0,
        version: int | None = None,
    ) -> LastResult:
        """Forward, loss and backward of the last stage in one go; accumulates gradients.

        weight: of the batch's mean loss in the accumulated gradients: 1 for a whole batch; for a
        micro-batch its share of the samples, so that the sum is that of the whole batch.
        """
        ...

    def apply(self) -> None:
        """One optimizer step with the gradients accumulated since the last one: a new version."""
        ...

    def aggregate(self, versions: int) -> None:
        """Replace the weights by the mean of the latest `versions` versions (at most `keep`).

        The version keeps its number. Optimizer slots and buffers are unchanged.
        """
        ...

    def read_layer(self, layer: int) -> LayerState:
        """The state of a layer in its latest version, as arrays that do not change any more."""
        ...

    def discard(self) -> None:
        """Forget the batches in flight and the accumulated gradients."""
        ...


class StageFactory(Protocol):
    """Makes stages of one network."""

    @property
    def layers(self) -> int:
        """How many layers the network has."""
        ...

    def build(
        self, start: int, stop: int, states: States, *, version: int = 0, keep: int = 1
    ) -> Stage:
        """A stage whose layers have these states.

        A layer without one has its initial weights, which are the same on every machine. version:
        how many optimizer steps are behind the states; schedules of the learning rate continue from
        there. keep: how many of the latest versions are kept for `aggregate` and for a forward that
        names one, in addition to those that batches in flight use.
        """
        ...

    def profile(self, inputs: Array, labels: Array) -> Sequence[LayerProfile]:
        """Measure every layer on this computer with one batch. No stage changes by it."""
        ...


FindFactory = Callable[[str], StageFactory]
"""Finds the factory of a network by its description, as an assignment names it. Called in the
thread for slow work, before each stage that is built. Raises a DdnnError where there is none."""
