"""A network as an ordered list of layers, each of which any machine of a pipeline can build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ddnn.errors import ConfigError
from ddnn.training.stages.divide import divide_model

Shape = tuple[int, ...]
MakeLayers = Callable[[Shape, int], Any]


@dataclass
class LayeredNetwork:
    """A network whose layers can be built one at a time.

    make(input_shape, classes) returns a list, whose items are layers of the pipeline, or a
    functional `keras.Model`, which `divide_model` divides. An item is a Keras layer or model with
    one input and one output, or a function of the input's shape (without batch) that returns one,
    which saves memory: it is called only where the layer is built. Inputs are images of 0..255, as
    those of a section of `ddnn train`; outputs of the last layer are scores [classes].

    Initial weights follow from the seed and the layer's number alone, so that a machine that builds
    a few layers gets those of a machine that builds all (the same bits where TensorFlow's version
    and the kind of processor are the same).
    """

    make: MakeLayers
    input_shape: Shape
    classes: int
    seed: int = 0
    _shapes: list[Shape] = field(init=False)  # the inputs of layer 0, 1, …, as far as known
    _count: int = field(init=False)

    def __post_init__(self) -> None:
        self._shapes, self._count = [self.input_shape], len(self._list_items())

    @property
    def layers(self) -> int:
        """How many layers the network has."""
        return self._count

    def build(self, start: int, stop: int) -> list[Any]:
        """The layers [start, stop) as Keras models with initial weights.

        Layers before them are built too, one at a time, where the shape of the inputs is not known
        yet. Raises ConfigError where a layer does not fit, or there are no such layers.
        """
        if not 0 <= start < stop <= self._count:
            raise ConfigError(
                f"layers {start} to {stop - 1} of a network of {self._count}; expected a part of it"
            )
        first = min(start, len(self._shapes) - 1)
        return [model for number, model in self._build_each(first, stop) if number >= start]

    def _list_items(self) -> list[Any]:
        keras.utils.set_random_seed(self.seed)  # initializers draw their seeds when they are made
        made = self.make(self.input_shape, self.classes)
        items = divide_model(made) if isinstance(made, keras.Model) else made
        if not isinstance(items, Sequence) or not items:
            raise ConfigError(
                f"the model's function returned {type(made).__name__}; expected a functional "
                "keras.Model or a list of layers"
            )
        return list(items)

    def _build_each(self, first: int, stop: int) -> Iterator[tuple[int, Any]]:
        items = self._list_items()
        for number in range(first, stop):
            part = np.random.SeedSequence([self.seed, number]).generate_state(1)
            keras.utils.set_random_seed(int(part[0]))  # initializers made by build
            model = _build_layer(number, items[number], self._shapes[number])
            items[number] = None
            after = tuple(model.outputs[0].shape[1:])
            if number + 1 == self._count and after != (self.classes,):
                raise ConfigError(
                    f"the last layer gives {list(after)}; expected scores [{self.classes}]"
                )
            if len(self._shapes) == number + 1:
                self._shapes.append(after)
            yield number, model


def _build_layer(number: int, item: Any, shape: Shape) -> Any:
    """A Keras model of one layer, built. ConfigError where it does not fit."""
    try:
        made = item if isinstance(item, keras.Layer) else item(shape)
        inputs = keras.Input(shape)
        model = keras.Model(inputs, made(inputs), name=f"layer{number}")
    except (AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"layer {number} cannot be built for inputs {list(shape)}: {reason}; expected a Keras "
            "layer, a model, or a function of the input's shape that returns one"
        ) from None
    if len(model.outputs) != 1 or None in model.outputs[0].shape[1:]:
        raise ConfigError(
            f"layer {number} has outputs {[list(o.shape) for o in model.outputs]}; expected one of "
            "a fixed shape"
        )
    return model
