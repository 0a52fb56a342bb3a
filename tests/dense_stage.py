"""Stages of dense layers in NumPy: real forward and backward passes, SGD with momentum, dropout.

Layer n maps sizes[n] to sizes[n + 1]; all but the last have tanh and dropout. A running mean of
each layer's inputs is kept as a buffer, as batch normalization does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddnn.pipeline import LastResult, LayerProfile, LayerState

Array = np.ndarray
Weights = tuple[dict[str, Array], ...]


@dataclass
class DenseFactory:
    """sizes: of the features before, between and after the layers. layer_s: what a layer takes."""

    sizes: Sequence[int]
    seed: int = 0
    rate: float = 0.1
    momentum: float = 0.9
    dropout: float = 0.0
    layer_s: Sequence[float] | float = 0.01

    @property
    def layers(self) -> int:
        return len(self.sizes) - 1

    def build(
        self,
        start: int,
        stop: int,
        states: Mapping[int, LayerState],
        *,
        version: int = 0,
        keep: int = 1,
    ) -> DenseStage:
        return DenseStage(self, start, stop, states, version, keep)

    def initial(self, layer: int) -> dict[str, Array]:
        rows, columns = self.sizes[layer], self.sizes[layer + 1]
        generator = np.random.default_rng((self.seed, layer))
        kernel = generator.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)
        bias = np.zeros(columns, np.float32)
        return {
            "kernel": kernel,
            "bias": bias,
            "kernel_momentum": np.zeros_like(kernel),
            "bias_momentum": np.zeros_like(bias),
            "mean": np.zeros(rows, np.float32),
        }

    def profile(self, inputs: Array, labels: Array) -> list[LayerProfile]:
        seconds = np.broadcast_to(self.layer_s, self.layers).tolist()
        return [
            LayerProfile(
                seconds[n] / 3,
                2 * seconds[n] / 3,
                4 * len(inputs) * self.sizes[n + 1],
                sum(array.nbytes for array in self.initial(n).values()),
            )
            for n in range(self.layers)
        ]


class DenseStage:
    def __init__(
        self,
        factory: DenseFactory,
        start: int,
        stop: int,
        states: Mapping[int, LayerState],
        version: int,
        keep: int,
    ) -> None:
        self.start, self.stop = start, stop
        self.version, self.keep = version, keep
        self.used: list[tuple[int, int]] = []  # batch and weight version of each forward
        self._factory = factory
        self._layers = [
            {name: np.array(array) for name, array in states[n].items()}
            if n in states
            else factory.initial(n)
            for n in range(start, stop)
        ]
        self._versions: dict[int, Weights] = {version: self._weights()}
        self._flight: dict[int, tuple[int, Weights, list[Any]]] = {}
        self._gradients: list[dict[str, Array]] | None = None

    def _weights(self) -> Weights:
        return tuple({name: one[name] for name in ("kernel", "bias")} for one in self._layers)

    def forward(self, batch: int, inputs: Array, version: int | None = None) -> Array:
        if batch in self._flight:
            number, weights, _ = self._flight[batch]
        else:
            number = self.version if version is None else version
            weights = self._versions[number]
            self.used.append((batch, number))
        traces: list[Any] = []
        x = inputs
        for n, weight in enumerate(weights, self.start):
            layer = self._layers[n - self.start]
            layer["mean"] = (0.9 * layer["mean"] + 0.1 * x.mean(axis=0)).astype(np.float32)
            z = x @ weight["kernel"] + weight["bias"]
            if n == self._factory.layers - 1:
                traces.append((x, None, None))
                x = z
                continue
            y = np.tanh(z)
            mask = None
            if self._factory.dropout:
                generator = np.random.default_rng((self._factory.seed, batch, n))
                share = 1 - self._factory.dropout
                mask = ((generator.random(y.shape) < share) / share).astype(np.float32)
            traces.append((x, y, mask))
            x = y if mask is None else y * mask
        self._flight[batch] = (number, weights, traces)
        return x

    def backward(self, batch: int, gradient: Array) -> Array | None:
        _, weights, traces = self._flight.pop(batch)
        if self._gradients is None:
            self._gradients = [
                {name: np.zeros_like(array) for name, array in weight.items()} for weight in weights
            ]
        for k in range(len(weights) - 1, -1, -1):
            x, y, mask = traces[k]
            if mask is not None:
                gradient = gradient * mask
            if y is not None:
                gradient = gradient * (1 - y * y)
            self._gradients[k]["kernel"] += x.T @ gradient
            self._gradients[k]["bias"] += gradient.sum(axis=0)
            gradient = gradient @ weights[k]["kernel"].T
        return gradient if self.start else None

    def train_last(
        self,
        batch: int,
        inputs: Array,
        labels: Array,
        weight: float = 1.0,
        version: int | None = None,
    ) -> LastResult:
        scores = self.forward(batch, inputs, version)
        shifted = scores - scores.max(axis=1, keepdims=True)
        p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        truth = np.eye(p.shape[1], dtype=np.float32)[labels]
        loss = float(-np.log((p * truth).sum(axis=1) + 1e-12).mean())
        gradient = (weight * (p - truth) / len(labels)).astype(np.float32)
        correct = int((p.argmax(axis=1) == labels).sum())
        return LastResult(self.backward(batch, gradient), loss, correct, len(labels))

    def apply(self) -> None:
        factory = self._factory
        for layer, gradients in zip(self._layers, self._gradients or (), strict=True):
            for name, gradient in gradients.items():
                momentum = factory.momentum * layer[f"{name}_momentum"] + gradient
                layer[f"{name}_momentum"] = momentum
                layer[name] = layer[name] - factory.rate * momentum
        self._gradients = None
        self.version += 1
        self._versions[self.version] = self._weights()
        self._versions.pop(self.version - self.keep, None)

    def aggregate(self, versions: int) -> None:
        latest = [self._versions[v] for v in sorted(self._versions)[-versions:]]
        for k, layer in enumerate(self._layers):
            for name in ("kernel", "bias"):
                layer[name] = np.mean([weights[k][name] for weights in latest], axis=0)
        self._versions[self.version] = self._weights()

    def read_layer(self, layer: int) -> LayerState:
        return {name: array.copy() for name, array in self._layers[layer - self.start].items()}

    def discard(self) -> None:
        self._flight.clear()
        self._gradients = None


def make_data(features: int, classes: int, samples: int = 8, seed: int = 1):
    """A function that gives the batch of a number: inputs float32 [samples, features], labels."""
    teacher = np.random.default_rng(seed).normal(0, 1, (features, classes))

    def read(batch: int) -> tuple[Array, Array]:
        generator = np.random.default_rng((seed, batch))
        inputs = generator.normal(0, 1, (samples, features)).astype(np.float32)
        return inputs, (inputs @ teacher).argmax(axis=1).astype(np.int64)

    return read


def train_serially(
    factory: DenseFactory, data, batches: int, micro_batches: int = 1
) -> tuple[dict[int, LayerState], list[float]]:
    """Plain training of the whole network in one place: the layers' states, and the losses."""
    stage = factory.build(0, factory.layers, {})
    losses = []
    for batch in range(batches):
        inputs, labels = data(batch)
        losses.append(stage.train_last(batch, inputs, labels, 1 / micro_batches).loss)
        if (batch + 1) % micro_batches == 0:
            stage.apply()
    return {n: stage.read_layer(n) for n in range(factory.layers)}, losses
