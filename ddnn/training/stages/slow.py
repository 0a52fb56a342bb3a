"""Stages that take longer than they need: slower devices, emulated on one machine.

An operation that took t seconds of processor time takes at least `factor` times t, except for the
first one of its kind, which compiles. Results are the same. What is emulated is the time of
computing only: memory and links are those of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

from ddnn.core.section import Array
from ddnn.pipeline.stage import LastResult, LayerProfile, LayerState, Stage, StageFactory, States

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class SlowStages:
    """Makes stages that are `factor` times slower than those of another factory."""

    def __init__(self, factory: StageFactory, factor: float) -> None:
        self.layers, self._factory, self._factor = factory.layers, factory, factor

    def build(
        self, start: int, stop: int, states: States, *, version: int = 0, keep: int = 1
    ) -> SlowStage:
        stage = self._factory.build(start, stop, states, version=version, keep=keep)
        return SlowStage(stage, self._factor)

    def profile(self, inputs: Array, labels: Array) -> Sequence[LayerProfile]:
        return [
            replace(
                layer,
                forward_s=self._factor * layer.forward_s,
                backward_s=self._factor * layer.backward_s,
            )
            for layer in self._factory.profile(inputs, labels)
        ]


class SlowStage:
    """A stage whose operations take longer; see ddnn.pipeline.stage.Stage."""

    def __init__(self, stage: Stage, factor: float) -> None:
        self.start, self.stop = stage.start, stage.stop
        self._stage, self._factor = stage, factor
        self._compiled: set[str] = set()

    def forward(self, batch: int, inputs: Array, version: int | None = None) -> Array:
        return self._take_time(self._stage.forward, batch, inputs, version)

    def backward(self, batch: int, gradient: Array) -> Array | None:
        return self._take_time(self._stage.backward, batch, gradient)

    def train_last(
        self,
        batch: int,
        inputs: Array,
        labels: Array,
        weight: float = 1.0,
        version: int | None = None,
    ) -> LastResult:
        return self._take_time(self._stage.train_last, batch, inputs, labels, weight, version)

    def apply(self) -> None:
        self._take_time(self._stage.apply)

    def aggregate(self, versions: int) -> None:
        self._take_time(self._stage.aggregate, versions)

    def read_layer(self, layer: int) -> LayerState:
        return self._stage.read_layer(layer)

    def discard(self) -> None:
        self._stage.discard()

    def _take_time(
        self,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        started_s, processor_s = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        if function.__name__ not in self._compiled:
            self._compiled.add(function.__name__)
            return result
        due_s = self._factor * (time.process_time() - processor_s)
        time.sleep(max(0.0, due_s - (time.perf_counter() - started_s)))
        return result
