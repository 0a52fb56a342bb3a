"""One layer of a pipeline: a Keras model of one block, its optimizer, and its state by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ddnn.core.section import Array
from ddnn.errors import ConfigError
from ddnn.training.stages.optimizers import OptimizerSettings, make_optimizer


class Run(NamedTuple):
    """Results of a layer: its outputs, and (variable, new value) of each buffer."""

    outputs: Any
    updates: list[tuple[Any, Any]]


class PipelineLayer:
    """A layer with everything that must travel with it when it moves to another machine.

    Its state has the arrays `weight0`, `weight1` … (trainable), `buffer0` … (statistics of batch
    normalization) and `optimizer0` … (the number of steps and the slots), in the order of Keras.

    number: of the layer in the network. model: one input, one output, built. The seeds of its
    random layers (dropout) follow from `seed`, the number and the batch, so that a batch that is
    computed again, or elsewhere, gets the same random numbers.
    """

    def __init__(self, number: int, model: Any, settings: OptimizerSettings, seed: int) -> None:
        self.number, self.model = number, model
        self.weights = list(model.trainable_variables)
        kept = {id(variable) for variable in model.non_trainable_weights}
        others = list(model.non_trainable_variables)  # buffers and states of seed generators
        self.buffers = [variable for variable in others if id(variable) in kept]
        seeds = np.random.SeedSequence([seed, number]).generate_state(max(1, len(others)))
        self._seeds = [
            None if id(variable) in kept else int(value) >> 1
            for variable, value in zip(others, seeds, strict=False)
        ]
        self.optimizer = make_optimizer(settings)
        if self.weights:
            self.optimizer.build(self.weights)

    def run(self, weights: Sequence[Any], batch: Any, inputs: Any) -> Run:
        """Compute the layer in training mode with these weights, as tensor operations.

        batch: its number, an int64 tensor
        """
        others = self.model.non_trainable_variables
        before = [
            tf.convert_to_tensor(variable)
            if seed is None
            else tf.cast(tf.stack([tf.constant(seed, tf.int64), batch]), variable.dtype)
            for variable, seed in zip(others, self._seeds, strict=True)
        ]
        outputs, after = self.model.stateless_call(weights, before, inputs, training=True)
        updates = [
            (variable, value)
            for variable, value, seed in zip(others, after, self._seeds, strict=True)
            if seed is None
        ]
        return Run(outputs, updates)

    def apply(self, gradients: Sequence[Any], learning_rate: Any) -> None:
        """One step of the optimizer. gradients: of the loss, one for each weight.

        Gradients of the weights' regularizers are added: these do not depend on a batch. Losses
        that a layer adds while it computes (activity regularizers) are not part of the training.
        """
        if not self.weights:
            return
        self.optimizer.learning_rate.assign(learning_rate)
        self.optimizer.apply(
            [
                gradient if weight.regularizer is None else gradient + _differentiate(weight)
                for gradient, weight in zip(gradients, self.weights, strict=True)
            ]
        )

    def read_state(self) -> dict[str, Array]:
        """Copies of all arrays of the state."""
        return {name: np.array(variable) for name, variable in self._variables().items()}

    def write_state(self, state: Mapping[str, Array]) -> None:
        """Set all arrays of the state. ConfigError where one is missing, unknown or another."""
        variables = self._variables()
        if state.keys() != variables.keys():
            raise ConfigError(
                f"state of layer {self.number} has the arrays {', '.join(sorted(state))}; expected "
                f"{', '.join(sorted(variables))}: it is of another network or optimizer"
            )
        for name, variable in variables.items():
            value, wanted = state[name], (tuple(variable.shape), variable.dtype)
            if (value.shape, str(value.dtype)) != wanted:
                raise ConfigError(
                    f"state of layer {self.number}: {name} is {value.dtype} {value.shape}; "
                    f"expected {wanted[1]} {wanted[0]}: it is of another network or optimizer"
                )
        for name, variable in variables.items():
            variable.assign(state[name])

    def _variables(self) -> dict[str, Any]:
        rate = self.optimizer.learning_rate  # follows from the version
        slots = [v for v in self.optimizer.variables if v is not rate] if self.weights else []
        groups = {"weight": self.weights, "buffer": self.buffers, "optimizer": slots}
        return {
            f"{kind}{index}": variable
            for kind, variables in groups.items()
            for index, variable in enumerate(variables)
        }


def _differentiate(weight: Any) -> Any:
    """The gradient of a weight's regularizer."""
    value = tf.convert_to_tensor(weight)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(value)
        loss = weight.regularizer(value)
    return tape.gradient(loss, value)
