"""Students of several depths and widths, for fused features and for images, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import layers

from ddnn.errors import ConfigError
from ddnn.students.types import StudentType
from ddnn.training.blocks import add_conv, make_batch_norm
from ddnn.training.cut import list_tensors, replay

Shape = tuple[int, int, int]  # height, width, channels
WORD_BYTES = 4  # float32
EXPANSION = 4  # of an inverted residual block's channels
IMAGE_SIDE = 32  # the least of what counts as an image and not as features
Kind = Literal["conv", "wrn", "mobile"]
_NAME = re.compile(r"(conv|wrn|mobile)-(\d+)-(\d+)(?:-s(\d+))?")


class Backbone(NamedTuple):
    """A student without its bridge, written such as wrn-16-1 or, at half resolution, wrn-16-1-s2.

    kind: "conv" has `depth` convolutions of `width` channels; "wrn" is WRN-depth-width (Zagoruyko,
    Komodakis, 2016); "mobile" has `depth` inverted residual blocks in each of three stages
    (MobileNetV2) of 16, 32 and 64 times `width` channels. stem_stride: of the first convolution.
    """

    kind: Kind
    depth: int
    width: int
    stem_stride: int = 1

    @classmethod
    def parse(cls, name: str) -> Backbone:
        """The backbone of that name. ConfigError where there is none."""
        found = _NAME.fullmatch(name)
        if found is None or not all(int(n) for n in found.groups("1")[1:]):
            raise ConfigError(
                f"student {name!r}: expected KIND-DEPTH-WIDTH such as conv-2-32, wrn-16-1 or "
                "mobile-1-1, and -s2 for half the resolution"
            )
        kind, *numbers = found.groups("1")
        backbone = cls(kind, *map(int, numbers))  # type: ignore[arg-type]
        if kind == "wrn" and (backbone.depth < 10 or backbone.depth % 6 != 4):
            raise ConfigError(f"student {name!r}: the depth of a WRN is 10, 16, 22, 28, …")
        return backbone

    @property
    def name(self) -> str:
        stem = f"-s{self.stem_stride}" if self.stem_stride > 1 else ""
        return f"{self.kind}-{self.depth}-{self.width}{stem}"

    @property
    def channels(self) -> int:
        """Of the map before the bridge."""
        return self.width if self.kind == "conv" else 64 * self.width


def list_backbones(input_shape: Shape) -> tuple[Backbone, ...]:
    """The backbones to choose from for inputs of this shape, small to large."""
    convolutions = [Backbone("conv", depth, width) for depth in (1, 2) for width in (16, 32, 64)]
    if input_shape[0] < IMAGE_SIDE:
        return tuple(convolutions)
    halves = (2, 1)
    return (
        *(Backbone("mobile", depth, 1, stem) for depth in (1, 2) for stem in halves),
        *(Backbone("wrn", depth, 1, stem) for depth in (10, 16, 22) for stem in halves),
    )


def build_student(
    backbone: Backbone, input_shape: Shape, map_shape: Shape, *, positive: bool = True
) -> Any:
    """A Keras model: the teacher's inputs -> a portion of its feature map, `map_shape`.

    The backbone's map is pooled or upsampled to the height and width of the teacher's, then a
    bridge (1x1 convolution, batch norm) gives the portion's filters, as in NoNN (arXiv 1907.11804).
    positive: a ReLU follows, because no value of the teacher's map is negative.

    Raises ConfigError where one size is no multiple of the other.
    """
    inputs = layers.Input(input_shape)
    x = build_body(inputs, backbone, map_shape)
    x = _fit_map(x, map_shape, backbone.name)
    x = layers.Conv2D(map_shape[2], 1, use_bias=False, name="bridge")(x)
    x = make_batch_norm("bridge_norm")(x)
    return keras.Model(inputs, layers.ReLU()(x) if positive else x)


def describe_student(backbone: Backbone, input_shape: Shape, map_shape: Shape) -> StudentType:
    """What a student with this backbone costs and how many filters it can learn.

    map_shape: of the teacher's whole feature map [height, width, filters], whose bridge counts.
    capacity: the channels before the bridge, because a linear bridge gives no more independent
    filters than it has inputs.
    """
    student = build_student(backbone, input_shape, map_shape)
    return StudentType(
        backbone.name,
        count_flops(student),
        count_memory_bytes(student),
        min(backbone.channels, map_shape[2]),
    )


def list_students(
    input_shape: Shape, map_shape: Shape, names: Sequence[str] = ()
) -> tuple[StudentType, ...]:
    """The students of these names, by default all for inputs of this shape. Raises ConfigError."""
    backbones = [Backbone.parse(name) for name in names] or list_backbones(input_shape)
    return tuple(describe_student(backbone, input_shape, map_shape) for backbone in backbones)


def count_flops(model: Any) -> int:
    """Two for each multiplication of a convolution or dense layer, for one input.

    Batch norm folds into the convolution before it; activations and pooling are left out.
    """
    flops = 0

    def count(layer: Any, args: Any, kwargs: Any, out: Any) -> None:
        nonlocal flops
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            positions = int(np.prod(out.shape[1:-1]))
            flops += 2 * int(np.prod(layer.kernel.shape)) * positions
        elif isinstance(layer, layers.Dense):
            flops += 2 * int(np.prod(layer.kernel.shape)) * int(np.prod(out.shape[1:-1]))

    replay(model, count)
    return flops


def count_memory_bytes(model: Any) -> int:
    """Of the weights and of the largest operation's inputs and outputs, for one input, as float32.

    What the interpreter itself takes is not in it.
    """
    largest = 0

    def measure(layer: Any, args: Any, kwargs: Any, out: Any) -> None:
        nonlocal largest
        tensors = list_tensors((args, kwargs, out))
        largest = max(largest, sum(int(np.prod(tensor.shape[1:])) for tensor in tensors))

    replay(model, measure)
    return WORD_BYTES * (int(model.count_params()) + largest)


# ----------------------------------------------------------------------- bodies


def build_body(inputs: Any, backbone: Backbone, map_shape: Shape = (1, 1, 1)) -> Any:
    """The backbone's last feature map of symbolic inputs.

    map_shape: convolutions are followed by pooling while the map is twice as large or larger
    """
    return _BODIES[backbone.kind](inputs, backbone, map_shape)


def _add_conv_body(x: Any, backbone: Backbone, map_shape: Shape) -> Any:
    """Convolutions, each followed by pooling while the map is twice the teacher's or larger."""
    for number in range(backbone.depth):
        x = add_conv(x, backbone.width, stride=1 if number else backbone.stem_stride)
        if x.shape[1] >= 2 * map_shape[0] and x.shape[2] >= 2 * map_shape[1]:
            x = layers.MaxPooling2D(2)(x)
    return x


def _add_wrn_body(x: Any, backbone: Backbone, map_shape: Shape) -> Any:
    """The three stages of a WRN. Convolutions have biases, as those that NoNN counts."""
    x = layers.Conv2D(16, 3, backbone.stem_stride, "same", kernel_initializer="he_normal")(x)
    for stage, channels in enumerate((16, 32, 64)):
        for block in range((backbone.depth - 4) // 6):
            x = _add_wrn_block(x, channels * backbone.width, 2 if stage and not block else 1)
    return _add_norm_relu(x)


def _add_wrn_block(x: Any, channels: int, stride: int) -> Any:
    start = _add_norm_relu(x)
    same = x.shape[-1] == channels and stride == 1
    shortcut = x if same else layers.Conv2D(channels, 1, stride)(start)
    y = layers.Conv2D(channels, 3, stride, "same", kernel_initializer="he_normal")(start)
    y = _add_norm_relu(y)
    y = layers.Conv2D(channels, 3, padding="same", kernel_initializer="he_normal")(y)
    return layers.Add()([shortcut, y])


def _add_norm_relu(x: Any) -> Any:
    return layers.ReLU()(make_batch_norm()(x))


def _add_mobile_body(x: Any, backbone: Backbone, map_shape: Shape) -> Any:
    """Inverted residual blocks in three stages, the second and third with stride 2."""
    x = add_conv(x, 16 * backbone.width, stride=backbone.stem_stride)
    for stage, channels in enumerate((16, 32, 64)):
        for block in range(backbone.depth):
            x = _add_inverted_block(x, channels * backbone.width, 2 if stage and not block else 1)
    return x


def _add_inverted_block(x: Any, channels: int, stride: int) -> Any:
    y = add_conv(x, EXPANSION * x.shape[-1], kernel=1)
    y = layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(y)
    y = layers.Conv2D(channels, 1, use_bias=False)(_add_norm_relu(y))
    y = make_batch_norm()(y)
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == channels else y


_BODIES: dict[Kind, Callable[[Any, Backbone, Shape], Any]] = {
    "conv": _add_conv_body,
    "wrn": _add_wrn_body,
    "mobile": _add_mobile_body,
}


def _fit_map(x: Any, map_shape: Shape, name: str) -> Any:
    """Pool or upsample the map to the height and width of `map_shape`."""
    have, want = x.shape[1:3], map_shape[:2]
    if tuple(have) == tuple(want):
        return x
    if all(h % w == 0 for h, w in zip(have, want, strict=True)):
        return layers.AveragePooling2D(
            [h // w for h, w in zip(have, want, strict=True)],
        )(x)
    if all(w % h == 0 for h, w in zip(have, want, strict=True)):
        return layers.UpSampling2D([w // h for h, w in zip(have, want, strict=True)])(x)
    raise ConfigError(
        f"student {name}: its map of {have[0]}x{have[1]} fits no map of {want[0]}x{want[1]}; "
        "expected one to be a multiple of the other"
    )
