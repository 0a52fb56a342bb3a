"""Cuts of a Keras model at one linear layer: head -> layer -> tail, for `ddnn plan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

from ddnn.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CutLayer:
    """A layer that can be cut out. flops: of one sample; density: share of non-zero weights."""

    name: str
    kind: Literal["dense", "conv2d"]
    flops: int
    parameters: int
    density: float


@dataclass(frozen=True, slots=True)
class Cut:
    """A model in three parts. Head and tail share the model's weights; the layer has a copy.

    head: the model's inputs -> [x, carry0, …]; layer: x -> z, the pre-activation;
    tail: [z, carry0, …] -> the model's outputs, as a list. Carries are tensors that the tail needs
    and that do not depend on the layer, including outputs of the model.
    """

    head: Any
    layer: Any
    tail: Any

    @property
    def head_arrays(self) -> tuple[str, ...]:
        """Names of the head's outputs."""
        return ("x", *(f"carry{i}" for i in range(len(self.head.outputs) - 1)))

    @property
    def tail_arrays(self) -> tuple[str, ...]:
        """Names of the tail's inputs."""
        return ("z", *self.head_arrays[1:])


def find_cuttable(model: Any) -> tuple[CutLayer, ...]:
    """The layers that can be cut out, heaviest first.

    Plain Dense and Conv2D layers (groups 1, channels last, float32 weights, fixed shapes) that
    the model calls once. Raises ConfigError where the model is not functional (keras.Model with
    inputs and outputs).
    """
    calls: dict[str, list[tuple[Any, Any]]] = {}
    replay(model, lambda layer, _, __, out: calls.setdefault(layer.name, []).append((layer, out)))
    found = []
    for name, called in calls.items():
        layer, out = called[0]
        kind = _classify(layer)
        if len(called) > 1 or kind is None or None in out.shape[1:]:
            continue
        kernel = np.asarray(layer.kernel)
        positions = int(np.prod(out.shape[1:-1]))
        found.append(
            CutLayer(
                name,
                kind,
                flops=2 * int(kernel.size) * positions,
                parameters=sum(int(np.prod(weight.shape)) for weight in layer.weights),
                density=float(np.mean(kernel != 0)),
            )
        )
    return tuple(sorted(found, key=lambda layer: -layer.flops))


def cut(model: Any, name: str) -> Cut:
    """Cut the model at the layer `name`.

    Raises ConfigError, which names the layers that can be cut out, for another name.
    """
    known = find_cuttable(model)
    if name not in (layer.name for layer in known):
        those = ", ".join(f"{layer.name} ({layer.flops:,} flops)" for layer in known)
        raise ConfigError(
            f"no layer {name!r} that can be cut out; "
            + (
                f"those that can, heaviest first: {those}"
                if known
                else "this section has none; expected a Dense or Conv2D layer with float weights"
            )
        )
    layer_call: list[tuple[Any, Any]] = []  # the layer and its input
    late: dict[int, Any] = {}  # tensors that depend on the layer -> their copies in the tail
    carried: dict[int, tuple[Any, Any]] = {}  # tensors that the tail needs -> the tensor, its input

    def map_to_tail(tensor: Any) -> Any:
        if not isinstance(tensor, keras.KerasTensor):
            return tensor
        if id(tensor) in late:
            return late[id(tensor)]
        if id(tensor) not in carried:
            mirror = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
            carried[id(tensor)] = (tensor, mirror)
        return carried[id(tensor)][1]

    def visit(layer: Any, args: Any, kwargs: Any, out: Any) -> None:
        tensors = list_tensors((args, kwargs))
        if layer.name == name:
            layer_call.append((layer, tensors[0]))
            z = keras.Input(batch_shape=out.shape, dtype=out.dtype)
            late[id(out)] = _activate(layer, z)
            inputs.append(z)
        elif any(id(tensor) in late for tensor in tensors):
            args, kwargs = keras.tree.map_structure(map_to_tail, (args, kwargs))
            again = list_tensors(layer(*args, **kwargs))
            late.update(zip(map(id, list_tensors(out)), again, strict=True))

    inputs: list[Any] = []
    clone = replay(model, visit)
    outputs = [map_to_tail(tensor) for tensor in clone.outputs]
    layer, x = layer_call[0]
    carries = list(carried.values())
    head = keras.Model(clone.inputs, [x, *(tensor for tensor, _ in carries)])
    tail = keras.Model([*inputs, *(mirror for _, mirror in carries)], outputs)
    return Cut(head, _copy_linear(layer, x), tail)


def replay(model: Any, visit: Callable[[Any, Any, Any, Any], object]) -> Any:
    """Clone the model by calling its operations on new inputs; weights are shared.

    visit(operation, args, kwargs, outputs) is called after each of them.
    """

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        out = operation(*args, **kwargs)
        visit(operation, args, kwargs, out)
        return out

    try:
        functional = keras.Model(model.inputs, model.outputs)  # of a Sequential too
        return keras.models.clone_model(
            functional, clone_function=lambda layer: layer, call_function=call
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the section {getattr(model, 'name', model)!r} cannot be cut: expected a "
            f"functional Keras model ({error})"
        ) from None


def list_tensors(structure: Any) -> list[Any]:
    """The symbolic tensors of nested arguments or outputs."""
    return [t for t in keras.tree.flatten(structure) if isinstance(t, keras.KerasTensor)]


def _classify(layer: Any) -> Literal["dense", "conv2d"] | None:
    """The kind of a linear layer; None for subclasses, which may compute something else."""
    if type(layer) not in (layers.Dense, layers.Conv2D):
        return None
    if layer.compute_dtype != "float32" or layer.kernel.dtype != "float32":
        return None
    if type(layer) is layers.Dense:
        return "dense"
    return "conv2d" if layer.groups == 1 and layer.data_format == "channels_last" else None


def _activate(layer: Any, z: Any) -> Any:
    """Apply the layer's activation to its pre-activation."""
    if layer.activation is keras.activations.linear:
        return z
    return layers.Activation(layer.activation)(z)


def _copy_linear(layer: Any, x: Any) -> Any:
    """A copy of the layer without its activation."""
    if type(layer) is layers.Dense:
        plain = layers.Dense(layer.units, use_bias=layer.use_bias, name=layer.name)
    else:
        plain = layers.Conv2D(
            layer.filters,
            layer.kernel_size,
            layer.strides,
            layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format="channels_last",
            use_bias=layer.use_bias,
            name=layer.name,
        )
    plain.build(x.shape)
    plain.set_weights(
        [np.asarray(layer.kernel), *([np.asarray(layer.bias)] if layer.use_bias else [])]
    )
    return plain
