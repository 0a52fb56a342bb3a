"""Gradual magnitude pruning of dense layers while they train (Zhu & Gupta 2017).

At some steps the smallest weights of a layer are set to zero, more of them each time:
with s the final sparsity and t running from 0 at the first of these steps to 1 at the last,

    s_t = s (1 - (1 - t)^3)

which is steep at first, when many weights are redundant, and flat in the end, when few are. Unlike
the paper, a weight that is zero stays zero, and training starts without zeros.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import tensorflow as tf
from keras import layers

from ddnn.errors import ConfigError
from ddnn.training.models import Network


class Pruning(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of pruning; `first` and `last` are shares of the training's steps.

    layers: "<edge>/<layer>"; empty: all dense layers of the edges except those of the scores.
    """

    sparsity: float
    layers: tuple[str, ...] = ()
    first: float = 0.1
    last: float = 0.6  # the remaining steps train the remaining weights
    rounds: int = 40

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise ConfigError(f"sparsity {self.sparsity}: expected more than 0 and less than 1")
        if not 0 <= self.first <= self.last <= 1 or self.rounds < 1:
            raise ConfigError(
                f"pruning from {self.first} to {self.last} of the steps in {self.rounds} rounds: "
                "expected 0 <= first <= last <= 1 and at least one round"
            )


def make_schedule(pruning: Pruning, steps: int) -> dict[int, float]:
    """The sparsity to reach after each step (numbered from 1) at which weights are pruned."""
    first, last = round(pruning.first * steps), max(1, round(pruning.last * steps))
    rounds = max(1, min(pruning.rounds, last - first))
    return {
        first + round((last - first) * i / rounds): pruning.sparsity * (1 - (1 - i / rounds) ** 3)
        for i in range(1, rounds + 1)
    }


def find_prunable(network: Network) -> dict[str, Any]:
    """The dense layers of the edges' sections, by "<edge>/<layer>"."""
    return {
        f"{edge}/{layer.name}": layer
        for edge, model in network.edges.items()
        for layer in model.layers
        if type(layer) is layers.Dense
    }


def select_layers(network: Network, pruning: Pruning) -> dict[str, Any]:
    """The layers to prune.

    Raises ConfigError, which names the layers that exist, where one is unknown or there is none.
    """
    known = find_prunable(network)
    names = pruning.layers or [n for n, layer in known.items() if layer.units > network.classes]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"no dense layer {unknown[0]!r}" if unknown else "no wide dense layer"
        raise ConfigError(
            f"{what} to prune in the edge's section; it has {', '.join(known) or 'none'}; "
            "--edge-dense 2048 adds a wide one"
        )
    return {name: known[name] for name in names}


def measure_sparsities(network: Network, pruning: Pruning) -> dict[str, float]:
    """The share of zeros among the weights of each pruned layer."""
    kernels = {
        name: np.asarray(layer.kernel) for name, layer in select_layers(network, pruning).items()
    }
    return {name: float(np.mean(kernel == 0)) for name, kernel in kernels.items()}


class Pruner:
    """Keeps the pruned weights of a network at zero while `fit` trains it."""

    def __init__(self, network: Network, pruning: Pruning, steps: int) -> None:
        self._kernels = [layer.kernel for layer in select_layers(network, pruning).values()]
        self.masks = [tf.Variable(tf.ones(kernel.shape)) for kernel in self._kernels]
        self._schedule = make_schedule(pruning, steps)

    def apply(self) -> None:
        """Set the pruned weights to zero; the training step's graph includes it."""
        for kernel, mask in zip(self._kernels, self.masks, strict=True):
            kernel.assign(tf.convert_to_tensor(kernel) * mask)

    def prune_after(self, step: int) -> None:
        """Prune more weights if the schedule has this step."""
        sparsity = self._schedule.get(step)
        if sparsity is None:
            return
        for kernel, mask in zip(self._kernels, self.masks, strict=True):
            mask.assign(_make_mask(np.asarray(kernel), mask.numpy(), sparsity))
        self.apply()


def _make_mask(kernel: Any, mask: Any, sparsity: float) -> Any:
    """A float32 mask, 1 for the weights that remain; masked weights stay masked."""
    count = round(sparsity * kernel.size)
    magnitude = np.where(mask > 0, np.abs(kernel), -1.0).ravel()
    kept = np.ones(kernel.size, np.float32)
    kept[np.argpartition(magnitude, count - 1)[:count]] = 0  # count 0: none
    return kept.reshape(kernel.shape)
