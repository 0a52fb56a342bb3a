"""Linear layers cut into coded shards (Hadidi et al., EDGE 2023, Table I and section V).

A layer can be coded where its weights are split and its input is not: then every shard is a static
weight matrix applied to the same input, and so is every combination of shards. Workers return
pre-activations z = W x + b: an activation does not commute with sums, so activation, batch
normalization and max pooling come after decoding (derived here; the paper leaves it open).
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
from ddnn.coding.section import Matrix, smaller
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
SAME: dict[tuple[Kind, str], str] = {
    ("conv2d", "output"): "channel",
    ("conv2d", "output-channel"): "channel",
    ("conv2d", "input"): "filter",
    ("conv2d", "input-channel"): "filter",
}
"""Other names of these splits."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer, free of any framework: z = kernel applied to x, + bias; no activation.

    kernel: dense [in, out], an array or scipy sparse; conv2d [height, width, in, out], an array
    bias: [out] or None
    strides, padding, dilation: of conv2d, as in TensorFlow; one number stands for two
    Calling it runs it with numpy, on x [..., in] or [..., height, width, in]. float32, or float64
    if the kernel is. Raises ConfigError where the parts do not fit together.
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
        kernel = sparse.csr_array(self.kernel) if self.sparse else np.asarray(self.kernel)
        if kernel.ndim != ranks[self.kind] or 0 in kernel.shape:
            raise ConfigError(
                f"{self.kind}: the kernel has shape {list(kernel.shape)}; expected "
                f"{ranks[self.kind]} axes, none of length 0"
            )
        if not np.issubdtype(kernel.dtype, np.floating):
            raise ConfigError(
                f"{self.kind}: the kernel is {kernel.dtype}; expected float32 or float64 "
                "(a quantized layer is not linear: split it before it is quantized)"
            )
        dtype = np.float64 if kernel.dtype == np.float64 else np.float32
        bias = None if self.bias is None else np.asarray(self.bias).astype(dtype)
        if bias is not None and bias.shape != kernel.shape[-1:]:
            raise ConfigError(
                f"{self.kind}: the bias has shape {list(bias.shape)}; expected one value for each "
                f"of the {kernel.shape[-1]} outputs"
            )
        values = kernel.data if self.sparse else kernel
        if not np.isfinite(values).all() or not (bias is None or np.isfinite(bias).all()):
            raise ConfigError(f"{self.kind}: the weights are not all finite; train it again")
        object.__setattr__(self, "strides", _pair(self.strides))
        object.__setattr__(self, "dilation", _pair(self.dilation))
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

        Its activation is left out. Raises ConfigError where it computes anything else.
        """
        if isinstance(layer, Linear):
            return layer
        name = f"{getattr(layer, 'name', '')} ({type(layer).__name__})".lstrip()
        reason = _unsuitable(layer)
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
        """Outputs, or output channels."""
        return int(self.kernel.shape[-1])

    @property
    def sparse(self) -> bool:
        return bool(sparse.issparse(self.kernel))

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of z for an x of this shape."""
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
        spans = [self._span(axis, size)[0] for axis, size in enumerate(input_shape[-3:-1])]
        return (*input_shape[:-3], *spans, self.units)

    def __call__(self, x: ArrayLike) -> Array:
        x = np.asarray(x)
        shape = self.output_shape(x.shape)
        if self.kind == "dense":
            z = (x.reshape(-1, x.shape[-1]) @ self.kernel).reshape(shape)
        else:
            z = self._convolved(x)
        return cast(Array, z if self.bias is None else z + self.bias)

    def _convolved(self, x: Array) -> Array:
        around = [self._span(axis, size)[1] for axis, size in enumerate(x.shape[-3:-1])]
        x = np.pad(x, [(0, 0)] * (x.ndim - 3) + [*around, (0, 0)])
        windows = sliding_window_view(x, [self._reach(0), self._reach(1)], axis=(-3, -2))
        (down, right), (row, column) = self.strides, self.dilation
        windows = windows[..., ::down, ::right, :, ::row, ::column]  # [..., h, w, in, kh, kw]
        z: Array = np.tensordot(windows, self.kernel, axes=([-3, -2, -1], [2, 0, 1]))
        return z

    def _reach(self, axis: int) -> int:
        """How many inputs a dilated kernel spans."""
        return int((self.kernel.shape[axis] - 1) * self.dilation[axis] + 1)

    def _span(self, axis: int, size: int) -> tuple[int, Pair]:
        """Outputs along an axis, and the zeros before and after its inputs."""
        reach, stride = self._reach(axis), self.strides[axis]
        if self.padding == "valid":
            if size < reach:
                raise ConfigError(f"conv2d: {size} inputs along an axis; the kernel spans {reach}")
            return (size - reach) // stride + 1, (0, 0)
        count = -(-size // stride)
        zeros = max((count - 1) * stride + reach - size, 0)
        return count, (zeros // 2, zeros - zeros // 2)


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
        what that check can tell.
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
                f"answers {wrong} do not have {width} outputs as a shard has", wrong
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
    """Cut a layer's outputs into blocks and code them into n shards, any s of which may vanish.

    layer: a Linear, or what `Linear.of` takes
    method: "output" of dense, "channel" (output channels) of conv2d; the others of Table I are
        refused, each with its reason. Case, and "_" or " " for "-", do not matter
    code: by default the one that fits: uncoded (s = 0), one parity (s = 1), several (s > 1)
    seed: of the coefficients of that default code

    The outputs need not be divisible: blocks are zero-padded to the same length, more blocks than
    outputs leave empty ones. The bias is coded like the kernel. A dense kernel of mostly zeros is
    coded as CSR; each shard has the form that takes less memory.
    """
    whole = Linear.of(layer)
    _check_method(whole.kind, method)
    code = code or _default_code(n, s, seed)
    if (code.n, code.s) != (n, s) or code.factors is not None:
        raise ConfigError(
            f"code {code.name} is for n = {code.n}, s = {code.s}"
            f"{', a product of two matrices' if code.factors else ''}; "
            f"expected a matrix-vector code with n = {n}, s = {s}"
        )
    kernels = _encoded(code, smaller(whole.kernel) if whole.kind == "dense" else whole.kernel)
    if whole.kind == "dense":
        kernels = [smaller(kernel) for kernel in kernels]
    biases = [None] * n if whole.bias is None else _encoded(code, whole.bias)
    shards = tuple(
        replace(whole, kernel=kernel, bias=bias)
        for kernel, bias in zip(kernels, biases, strict=True)
    )
    return SplitLayer(code, shards, whole.units)


def _default_code(n: int, s: int, seed: int) -> Code:
    if s == 0:
        return Code.uncoded(n)
    return Code.parity(n) if s == 1 else Code.mds(n, s, seed)


def _check_method(kind: Kind, method: str | None) -> None:
    suitable = SUITABLE[kind]
    if method is None:
        return
    name = str(method).strip().lower().replace("_", "-").replace(" ", "-")
    name = SAME.get((kind, name), name)
    if name == suitable:
        return
    reason = UNSUITABLE.get((kind, name))
    if reason:
        raise ConfigError(f"a {kind} layer split by {method} cannot be coded: {reason}")
    known = [suitable, *(name for of, name in UNSUITABLE if of == kind)]
    why = ""
    if kind == "dense" and name in (SUITABLE["conv2d"], *(of for _, of in UNSUITABLE)):
        why = ": that is a split of conv2d, a dense layer has only inputs and outputs"
    raise ConfigError(f"a {kind} layer has no split {method!r}{why}; known are {', '.join(known)}")


def _encoded(code: Code, weights: Matrix) -> list[Any]:
    """The last axis cut into blocks, coded; `encode` pads the shorter blocks with zeros."""
    return code.encode([weights[..., where] for where in slices(weights.shape[-1], code.k)])


def _unsuitable(layer: Any) -> str | None:
    """Why something with a kernel is no Dense and no ordinary Conv2D layer."""
    if getattr(layer, "depth_multiplier", None) is not None:
        return "is depthwise: its output channels do not share the input"
    if hasattr(layer, "output_padding"):
        return "is a transposed convolution"
    if getattr(layer, "equation", None) is not None:
        return "computes an einsum"
    if getattr(layer, "quantization_mode", None) is not None:
        return "is quantized: a sum of its shards saturates; split it before it is quantized"
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


def _pair(value: Any) -> Pair:
    try:
        first, second = (value, value) if np.ndim(value) == 0 else value
        return index(first), index(second)
    except (TypeError, ValueError):
        raise ConfigError(
            f"strides, dilation {value!r}: expected one or two whole numbers"
        ) from None
