"""Split of a Keras model at its last feature map: features -> classifier, for students."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from ddnn.errors import ConfigError
from ddnn.training.cut import list_tensors, replay

MAP_RANK = 4  # [batch, height, width, filters]


@dataclass(frozen=True, slots=True)
class FeatureSplit:
    """A model in two parts, which share its weights.

    features: the model's inputs -> z [height, width, filters]; classifier: z -> the model's
    outputs, as a list.
    """

    features: Any
    classifier: Any

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of z: height, width, filters."""
        height, width, filters = (int(n) for n in self.features.outputs[0].shape[1:])
        return height, width, filters


def split_features(model: Any) -> FeatureSplit:
    """Split the model at the last feature map from which alone all its outputs are computed.

    Raises ConfigError where the model is not functional or has no such map between its inputs and
    its outputs.
    """
    calls: list[tuple[Any, Any, Any, list[Any]]] = []  # operation, args, kwargs, its outputs
    clone = replay(model, lambda *call: calls.append((*call[:3], list_tensors(call[3]))))
    for number in range(len(calls) - 2, -1, -1):  # the last operation leaves no classifier
        *_, outputs = calls[number]
        if len(outputs) != 1 or len(outputs[0].shape) != MAP_RANK:
            continue
        classifier = _continue_from(outputs[0], calls[number + 1 :], clone.outputs)
        if classifier is not None:
            inputs = clone.inputs if len(clone.inputs) > 1 else clone.inputs[0]
            return FeatureSplit(keras.Model(inputs, outputs[0]), classifier)
    raise ConfigError(
        f"the section {model.name!r} has no feature map [height, width, filters] from which alone "
        "its outputs are computed; expected convolutions, then a classifier"
    )


def _continue_from(z: Any, calls: list[tuple[Any, Any, Any, list[Any]]], ends: list[Any]) -> Any:
    """The model z -> ends; None where one of them needs more than z, or nothing is computed."""
    mirror = keras.Input(batch_shape=z.shape, dtype=z.dtype)
    late = {id(z): mirror}

    def find(tensor: Any) -> Any:
        return late[id(tensor)] if isinstance(tensor, keras.KerasTensor) else tensor

    for operation, args, kwargs, outputs in calls:
        needed = [id(tensor) in late for tensor in list_tensors((args, kwargs))]
        if any(needed):
            if not all(needed):
                return None
            args, kwargs = keras.tree.map_structure(find, (args, kwargs))
            again = list_tensors(operation(*args, **kwargs))
            late.update(zip(map(id, outputs), again, strict=True))
    if len(late) == 1 or not all(id(tensor) in late for tensor in ends):
        return None
    return keras.Model(mirror, [late[id(tensor)] for tensor in ends])
