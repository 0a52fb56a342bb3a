"""Stages of a layered network: built from states, and measured layer by layer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType

import numpy as np

from ddnn.core.section import Array
from ddnn.pipeline.stage import LayerProfile, LayerState, States
from ddnn.training.stages.layer import PipelineLayer
from ddnn.training.stages.network import LayeredNetwork
from ddnn.training.stages.optimizers import OptimizerSettings
from ddnn.training.stages.stage import KerasStage

REPETITIONS = 3


class KerasStages:
    """Makes the stages of a network; see ddnn.pipeline.stage.StageFactory.

    recompute: see KerasStage. clock: seconds, for the profile.
    """

    def __init__(
        self,
        network: LayeredNetwork,
        optimizer: OptimizerSettings | None = None,
        *,
        recompute: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.network, self.optimizer = network, optimizer or OptimizerSettings()
        self.layers = network.layers
        self._recompute, self._clock = recompute, clock

    def build(
        self,
        start: int,
        stop: int,
        states: States = MappingProxyType({}),
        *,
        version: int = 0,
        keep: int = 1,
    ) -> KerasStage:
        """The layers [start, stop); those without a state get their initial weights.

        Raises ConfigError where a state does not fit.
        """
        layers = self.build_layers(start, stop)
        for layer in layers:
            if layer.number in states:
                layer.write_state(states[layer.number])
        return KerasStage(
            layers, self.optimizer, version=version, keep=keep, recompute=self._recompute
        )

    def build_layers(self, start: int, stop: int) -> list[PipelineLayer]:
        """The layers [start, stop) in their initial state."""
        return [
            PipelineLayer(number, model, self.optimizer, self.network.seed)
            for number, model in enumerate(self.network.build(start, stop), start)
        ]

    def profile(self, inputs: Array, labels: Array) -> list[LayerProfile]:
        """Measure each layer alone on a batch: the median of three times, after one that compiles.

        A backward includes the update. That of the last layer is `train_last` as a whole, so its
        forward_s is 0.
        """
        profiles = []
        for number in range(self.layers):
            stage = self.build(number, number + 1)
            outputs = stage.forward(0, inputs)
            forward_s, backward_s = self._measure(stage, inputs, outputs, labels)
            profiles.append(
                LayerProfile(
                    forward_s=forward_s,
                    backward_s=backward_s,
                    output_bytes=outputs.nbytes,
                    state_bytes=sum(a.nbytes for a in stage.read_layer(number).values()),
                )
            )
            inputs = outputs
        return profiles

    def _measure(
        self, stage: KerasStage, inputs: Array, outputs: Array, labels: Array
    ) -> tuple[float, float]:
        """Seconds of a forward and of a backward with its update."""
        last = stage.stop == self.layers
        gradient = np.full_like(outputs, 1 / outputs.size)

        def run_forward(batch: int) -> object:
            return None if last else stage.forward(batch, inputs)

        def run_backward(batch: int) -> None:
            if last:
                stage.train_last(batch, inputs, labels)
            else:
                stage.backward(batch, gradient)
            stage.apply()

        stage.discard()
        run_forward(0)
        run_backward(0)
        forwards, backwards = [], []
        for batch in range(1, REPETITIONS + 1):
            started_s = self._clock()
            run_forward(batch)
            between_s = self._clock()
            run_backward(batch)
            forwards.append(between_s - started_s)
            backwards.append(self._clock() - between_s)
        return statistics.median(forwards), statistics.median(backwards)


def read_states(stages: Sequence[KerasStage]) -> dict[int, LayerState]:
    """The states of all layers of some stages."""
    return {
        layer: stage.read_layer(layer)
        for stage in stages
        for layer in range(stage.start, stage.stop)
    }
