"""Linear layers cut into coded shards (Hadidi et al., EDGE 2023, Table I and section V).

A layer can be coded where its weights are split and its input is not: then every shard is a static
weight matrix applied to the same input, and so is every combination of shards. Workers return
pre-activations z = W x + b: an activation does not commute with sums, so activation, batch
normalization and max pooling come after decoding (derived here; the paper does not discuss it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import index
from typing import Any, Literal, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike
from scipy import sparse

from ddnn.coding.code import Code
from ddnn.coding.constructions import make_systematic
from ddnn.coding.section import Matrix, compact
from ddnn.core.blocks import join, sizes, slices
from ddnn.core.section import Array
from ddnn.errors import ConfigError, InconsistentAnswersError

Kind = Literal["dense", "conv2d"]
Padding = Literal["valid", "same"]
Pair = tuple[int, int]

SUITABLE: dict[Kind, str] = {"dense": "output", "conv2d": "channel"}
UNSUITABLE: dict[tuple[Kind, str], str] = {
    ("dense", "input"): (
        "splitting the input gives each worker other weights and another input: the products share "
        "no factor, so a further worker would have to do the work of all of them"
    ),
    ("conv2d", "spatial"): (
        "spatial tiles have the weights in common but not the input: the parity is the layer "
        "applied to the sum of the tiles, which must be computed at run time for every sample"
    ),
    ("conv2d", "filter"): (
        "splitting the input channels divides the weights and the input: the partial sums have no "
        "common factor, so no static weights are their parity"
    ),
}
"""Table I of the paper: the splits of a layer that a static parity cannot cover, and why."""
SYNONYMS: dict[tuple[Kind, str], str] = {
    ("conv2d", "output"): "channel",
    ("conv2d", "output-channel"): "channel",
    ("conv2d", "input"): "filter",
    ("conv2d", "input-channel"): "filter",
}
"""Other names of these splits, by the name that `SUITABLE` and `UNSUITABLE` use."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer, independent of any framework: kernel applied to x, + bias; no activation.

    kernel: dense [in, out], an array or scipy sparse; conv2d [height, width, in, out], an array
    bias: [out] or None
    strides, padding, dilation: of conv2d, as in TensorFlow; one number is used for both axes
    Calling it runs it with numpy, on x [..., in] or [..., height, width, in]. float32, or float64
    if the kernel is. Raises ConfigError where kernel, bias and options do not fit together.
    """

    kind: Kind
    kernel: Matrix
    bias: Array | None = None
    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        ranks = {"dense": 2, "conv2d": 4}
        if self.kind not in ranks:
            raise ConfigError(f"a linear layer is {' or '.join(ranks)}, not {self.kind!r}")
        kernel = sparse.csr_array(self.kernel) if self.is_sparse else np.asarray(self.kernel)
        if kernel.ndim != ranks[self.kind] or 0 in kernel.shape:
            raise ConfigError(
                f"{self.kind}: the kernel has shape {list(kernel.shape)}; expected "
                f"{ranks[self.kind]} axes, none of length 0"
            )
        if not np.issubdtype(kernel.dtype, np.floating):
            raise ConfigError(
                f"{self.kind}: the kernel is {kernel.dtype}; expected float32 or float64 "
                "(a quantized layer is not linear: split it before quantization)"
            )
        dtype = np.float64 if kernel.dtype == np.float64 else np.float32
        bias = None if self.bias is None else np.asarray(self.bias).astype(dtype)
        if bias is not None and bias.shape != kernel.shape[-1:]:
            raise ConfigError(
                f"{self.kind}: the bias has shape {list(bias.shape)}; expected one value for each "
                f"of the {kernel.shape[-1]} outputs"
            )
        values = kernel.data if self.is_sparse else kernel
        if not np.isfinite(values).all() or not (bias is None or np.isfinite(bias).all()):
            raise ConfigError(f"{self.kind}: the weights are not all finite; train it again")
        object.__setattr__(self, "strides", _read_pair(self.strides))
        object.__setattr__(self, "dilation", _read_pair(self.dilation))
        if min(*self.strides, *self.dilation) < 1 or self.padding not in ("valid", "same"):
            raise ConfigError(
                f"{self.kind}: strides {self.strides}, dilation {self.dilation}, padding "
                f"{self.padding!r}; expected positive numbers and valid or same"
            )
        object.__setattr__(self, "kernel", kernel.astype(dtype, copy=False))
        object.__setattr__(self, "bias", bias)

    @classmethod
    def of(cls, layer: Any) -> Linear:
        """The linear part of a layer that has a kernel and a bias, as Keras' Dense and Conv2D do.

        Its activation is left out. Raises ConfigError for any other layer, with the reason.
        """
        if isinstance(layer, Linear):
            return layer
        name = f"{getattr(layer, 'name', '')} ({type(layer).__name__})".lstrip()
        reason = _find_reason_to_refuse(layer)
        if reason:
            raise ConfigError(
                f"layer {name} {reason}; a Dense or an ordinary Conv2D layer can be split"
            )
        kernel = layer.kernel if sparse.issparse(layer.kernel) else np.asarray(layer.kernel)
        bias = None if layer.bias is None else np.asarray(layer.bias)
        if kernel.ndim == 2:
            return cls("dense", kernel, bias)
        if kernel.ndim != 4:
            raise ConfigError(
                f"layer {name} has a kernel of shape {list(kernel.shape)}; expected [in, out] or "
                "[height, width, in, out]"
            )
        return cls(
            "conv2d",
            kernel,
            bias,
            getattr(layer, "strides", (1, 1)),
            getattr(layer, "padding", "valid"),
            getattr(layer, "dilation_rate", (1, 1)),
        )

    @property
    def units(self) -> int:
        """The number of outputs, or of output channels."""
        return int(self.kernel.shape[-1])

    @property
    def is_sparse(self) -> bool:
        return bool(sparse.issparse(self.kernel))

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of z for an x of this shape. Raises ConfigError where it does not fit."""
        axes = self.kernel.ndim - 1
        inputs = self.kernel.shape[-2]
        if len(input_shape) < axes or input_shape[-1] != inputs:
            expected = "height, width, " if axes == 3 else ""
            raise ConfigError(
                f"{self.kind}: the input has shape {list(input_shape)}; expected "
                f"[..., {expected}{inputs}]"
            )
        if self.kind == "dense":
            return (*input_shape[:-1], self.units)
        outputs = [self._measure_axis(axis, n)[0] for axis, n in enumerate(input_shape[-3:-1])]
        return (*input_shape[:-3], *outputs, self.units)

    def __call__(self, x: ArrayLike) -> Array:
        x = np.asarray(x)
        shape = self.compute_output_shape(x.shape)
        if self.kind == "dense":
            z = (x.reshape(-1, x.shape[-1]) @ self.kernel).reshape(shape)
        else:
            z = self._convolve(x)
        return cast(Array, z if self.bias is None else z + self.bias)

    def _convolve(self, x: Array) -> Array:
        padding = [self._measure_axis(axis, n)[1] for axis, n in enumerate(x.shape[-3:-1])]
        x = np.pad(x, [(0, 0)] * (x.ndim - 3) + [*padding, (0, 0)])
        extents = [self._compute_extent(0), self._compute_extent(1)]
        windows = sliding_window_view(x, extents, axis=(-3, -2))
        (down, right), (row, column) = self.strides, self.dilation
        windows = windows[..., ::down, ::right, :, ::row, ::column]  # [..., h, w, in, kh, kw]
        z: Array = np.tensordot(windows, self.kernel, axes=([-3, -2, -1], [2, 0, 1]))
        return z

    def _compute_extent(self, axis: int) -> int:
        """The number of inputs that the dilated kernel spans along an axis."""
        return int((self.kernel.shape[axis] - 1) * self.dilation[axis] + 1)

    def _measure_axis(self, axis: int, inputs: int) -> tuple[int, Pair]:
        """The outputs along an axis, and the zeros before and after its inputs."""
        extent, stride = self._compute_extent(axis), self.strides[axis]
        if self.padding == "valid":
            if inputs < extent:
                raise ConfigError(
                    f"conv2d: {inputs} inputs along an axis; expected at least the {extent} that "
                    "the kernel spans"
                )
            return (inputs - extent) // stride + 1, (0, 0)
        outputs = -(-inputs // stride)
        zeros = max((outputs - 1) * stride + extent - inputs, 0)
        return outputs, (zeros // 2, zeros - zeros // 2)


@dataclass(frozen=True, eq=False)
class SplitLayer:
    """A layer cut into coded shards, one for each worker. units: outputs of the whole layer."""

    code: Code
    shards: tuple[Linear, ...]
    units: int

    def merge(self, answers: Mapping[int, Any]) -> Array:
        """The pre-activations of the whole layer from those of some shards.

        answers: shard -> z [..., shard units]. Raises NotDecodableError where they do not
        suffice, InconsistentAnswersError where they contradict each other; see `Code.decode` for
        the limits of that check.
        """
        if not isinstance(answers, Mapping):
            raise ConfigError(f"answers are a mapping shard -> array, got {type(answers)}")
        answers = {
            worker: z if sparse.issparse(z) else np.asarray(z) for worker, z in answers.items()
        }
        width = sizes(self.units, self.code.k)[0]
        wrong = tuple(worker for worker, z in answers.items() if not z.ndim or z.shape[-1] != width)
        if wrong:
            raise InconsistentAnswersError(
                f"answers of shards {wrong}: expected {width} outputs, as a shard has", wrong
            )
        return join(self.code.decode(answers), self.units)


def split_layer(
    layer: Any,
    n: int,
    s: int,
    method: str | None = None,
    *,
    code: Code | None = None,
    seed: int = 0,
) -> SplitLayer:
    """Cut a layer's outputs into blocks and code them into n shards, any s of which may be lost.

    layer: a Linear, or what `Linear.of` takes
    method: "output" of dense, "channel" (output channels) of conv2d; the others of Table I are
        refused, each with its reason. Case is ignored; "_" and " " are read as "-"
    code: by default `make_systematic`: uncoded (s = 0), one parity (s = 1), several (s > 1)
    seed: of the coefficients of that default code

    The number of outputs need not be divisible: blocks are padded with zeros to the same length,
    and with more blocks than outputs some are empty. The bias is coded like the kernel. A dense
    kernel of mostly zeros is coded as CSR; each shard has the form that takes less memory. Raises
    ConfigError where the layer, the method or the code cannot be used.
    """
    whole = Linear.of(layer)
    _check_method(whole.kind, method)
    code = code or make_systematic(n, s, seed)
    if (code.n, code.s) != (n, s) or code.factors is not None:
        raise ConfigError(
            f"code {code.name} is for n = {code.n}, s = {code.s}"
            f"{', a product of two matrices' if code.factors else ''}; "
            f"expected a matrix-vector code with n = {n}, s = {s}"
        )
    kernels = _encode_weights(
        code, compact(whole.kernel) if whole.kind == "dense" else whole.kernel
    )
    if whole.kind == "dense":
        kernels = [compact(kernel) for kernel in kernels]
    biases = [None] * n if whole.bias is None else _encode_weights(code, whole.bias)
    shards = tuple(
        replace(whole, kernel=kernel, bias=bias)
        for kernel, bias in zip(kernels, biases, strict=True)
    )
    return SplitLayer(code, shards, whole.units)


def _check_method(kind: Kind, method: str | None) -> None:
    suitable = SUITABLE[kind]
    if method is None:
        return
    name = str(method).strip().lower().replace("_", "-").replace(" ", "-")
    name = SYNONYMS.get((kind, name), name)
    if name == suitable:
        return
    reason = UNSUITABLE.get((kind, name))
    if reason:
        raise ConfigError(f"a {kind} layer split by {method} cannot be coded: {reason}")
    known = [suitable, *(name for of, name in UNSUITABLE if of == kind)]
    why = ""
    if kind == "dense" and name in (SUITABLE["conv2d"], *(of for _, of in UNSUITABLE)):
        why = ": that is a split of conv2d, a dense layer has only inputs and outputs"
    raise ConfigError(
        f"a {kind} layer has no split {method!r}{why}; expected one of {', '.join(known)}"
    )


def _encode_weights(code: Code, weights: Matrix) -> list[Any]:
    """Cut the last axis into blocks and code them; `encode` pads shorter blocks with zeros."""
    return code.encode([weights[..., where] for where in slices(weights.shape[-1], code.k)])


def _find_reason_to_refuse(layer: Any) -> str | None:
    """The reason why an object is neither a Dense nor an ordinary Conv2D layer; None if it is."""
    if getattr(layer, "depth_multiplier", None) is not None:
        return "is depthwise: its output channels do not share the input"
    if hasattr(layer, "output_padding"):
        return "is a transposed convolution"
    if getattr(layer, "equation", None) is not None:
        return "computes an einsum"
    if getattr(layer, "quantization_mode", None) is not None:
        return "is quantized: sums of its shards would saturate; split it before quantization"
    if getattr(layer, "built", True) is False:
        return "has no weights yet; build the model first"
    if not hasattr(layer, "kernel") or not hasattr(layer, "bias"):
        return "has no kernel and bias"
    if getattr(layer, "groups", 1) != 1:
        return f"has {layer.groups} groups: its output channels do not share the input"
    if getattr(layer, "data_format", None) == "channels_first":
        return "is channels_first; expected channels_last"
    if getattr(layer, "padding", "valid") not in ("valid", "same"):
        return f"has padding {layer.padding!r}; expected valid or same"
    return None


def _read_pair(value: Any) -> Pair:
    try:
        first, second = (value, value) if np.ndim(value) == 0 else value
        return index(first), index(second)
    except (TypeError, ValueError):
        raise ConfigError(
            f"strides, dilation {value!r}: expected one or two whole numbers"
        ) from None
