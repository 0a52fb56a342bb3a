"""Division of a functional Keras model into layers of a pipeline."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import keras

from ddnn.errors import ConfigError
from ddnn.training.cut import list_tensors, replay


class _Step(NamedTuple):
    """A tensor through which everything passes, and whether the operations since the one before it
    have a kernel (weights of two axes or more)."""

    tensor: Any
    heavy: bool


def divide_model(model: Any) -> list[Any]:
    """The model as a chain of models, one for each layer of a pipeline; weights are shared.

    It is divided only where one tensor carries everything, so that a residual block stays whole. A
    layer begins with an operation that has a kernel (a convolution, a dense layer) or a block of
    them; what has none (normalization, activation, pooling) stays with what precedes it.

    Raises ConfigError where the model is not functional or has several inputs or outputs.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs; expected "
            "one of each"
        )
    steps, source = _find_steps(model)
    bounds: list[Any] = [source]
    has_kernel = steps[0].heavy
    for before, step in pairwise(steps):
        if step.heavy and has_kernel:
            bounds.append(before.tensor)
        has_kernel = has_kernel or step.heavy
    bounds.append(steps[-1].tensor)
    return [keras.Model(a, b) for a, b in pairwise(bounds)]


def _find_steps(model: Any) -> tuple[list[_Step], Any]:
    """The tensors that carry everything, in order, the output last; and the input."""
    calls: list[tuple[Any, list[Any], list[Any]]] = []
    clone = replay(
        model,
        lambda layer, args, kwargs, out: calls.append(
            (layer, list_tensors((args, kwargs)), list_tensors(out))
        ),
    )
    last_use = {id(clone.outputs[0]): len(calls)}
    for index, (_, inputs, _) in enumerate(calls):
        for tensor in inputs:
            last_use[id(tensor)] = max(index, last_use.get(id(tensor), 0))
    steps: list[_Step] = []
    alive, heavy = {id(clone.inputs[0])}, False
    for index, (layer, _, outputs) in enumerate(calls):
        weights = getattr(layer, "weights", ())  # operations such as additions have none
        heavy = heavy or any(len(weight.shape) > 1 for weight in weights)
        alive |= {id(tensor) for tensor in outputs}
        alive = {tensor for tensor in alive if last_use.get(tensor, -1) > index}
        if len(outputs) == 1 and alive == {id(outputs[0])}:
            steps.append(_Step(outputs[0], heavy))
            heavy = False
    return steps, clone.inputs[0]
