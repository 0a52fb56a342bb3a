"""The networks that a pipeline can train without a user's own: by name, such as mobilenet-0.5."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import layers

from ddnn.errors import ConfigError
from ddnn.training.blocks import make_batch_norm
from ddnn.training.hooks import load_function
from ddnn.training.models import Architecture, build_cloud_only
from ddnn.training.stages.network import LayeredNetwork, MakeLayers, Shape

# MobileNetV2 (Sandler et al., 2018), table 2: expansion, channels, blocks, stride of the first.
_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _HEAD = 32, 1280
EXPECTED = "mobilenet, mobilenet-WIDTH, mlp, mlp-UNITS-UNITS…, cloud or package.module:function"


def parse_network(text: str, input_shape: Shape, classes: int, seed: int = 0) -> LayeredNetwork:
    """The network of that name.

    mobilenet-WIDTH: MobileNetV2 for small images, WIDTH times its channels [1]
    mlp-UNITS-UNITS…: dense layers with ReLU [256-256]
    cloud: the cloud's section of configuration (a) of `ddnn train`
    package.module:function: of the user; see LayeredNetwork

    Raises ConfigError where there is none.
    """
    return LayeredNetwork(_find_maker(text), input_shape, classes, seed)


def _find_maker(text: str) -> MakeLayers:
    if ":" in text:
        return load_function(text, f"--model {text}")
    if re.fullmatch(r"mlp(-[1-9]\d{0,4})*", text):
        units = tuple(map(int, text.split("-")[1:]))
        return partial(list_mlp, units=units or (256, 256))
    if text == "cloud":
        return lambda shape, classes: build_cloud_only(Architecture(), shape, classes)
    if found := re.fullmatch(r"mobilenet(?:-(\d{1,2}(?:\.\d{1,3})?))?", text):
        width = float(found[1] or 1)
        if width > 0:
            return partial(list_mobilenet, width=width)
    raise ConfigError(f"--model {text}: expected {EXPECTED}")


def list_mobilenet(shape: Shape, classes: int, *, width: float = 1.0) -> list[Any]:
    """MobileNetV2 in 20 layers: stem, 17 blocks, last convolution, classifier.

    The stem's stride is 1 instead of 2, for images of 32x32 pixels: the last maps are 2x2.
    """

    def scale(channels: int) -> int:
        return max(8, int(channels * width + 4) // 8 * 8)

    items: list[Any] = [partial(_make_stem, channels=scale(_STEM))]
    for expansion, channels, count, stride in _BLOCKS:
        items += [
            partial(
                _make_inverted,
                channels=scale(channels),
                expansion=expansion,
                stride=1 if number else stride,
            )
            for number in range(count)
        ]
    return [*items, partial(_make_head, channels=scale(_HEAD)), partial(_make_classifier, classes)]


def list_mlp(shape: Shape, classes: int, *, units: tuple[int, ...] = (256, 256)) -> list[Any]:
    """One layer for each number of units, and one for the scores."""
    first = [layers.Rescaling(1 / 127.5, -1), layers.Flatten()]
    hidden = [
        layers.Dense(count, activation="relu", kernel_initializer="he_normal") for count in units
    ]
    every = [*hidden, layers.Dense(classes)]
    return [keras.Sequential([*first, every[0]]), *every[1:]]


def _model(shape: Shape, compose: Callable[[Any], Any]) -> Any:
    inputs = layers.Input(shape)
    return keras.Model(inputs, compose(inputs))


def _make_stem(shape: Shape, channels: int) -> Any:
    return _model(
        shape, lambda x: _convolve(layers.Rescaling(1 / 127.5, -1)(x), channels, kernel=3)
    )


def _make_head(shape: Shape, channels: int) -> Any:
    return _model(shape, lambda x: _convolve(x, channels))


def _make_classifier(classes: int, shape: Shape) -> Any:
    return _model(
        shape,
        lambda x: layers.Dense(classes)(
            layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x)),
        ),
    )


def _make_inverted(shape: Shape, channels: int, expansion: int, stride: int) -> Any:
    """An inverted residual block."""

    def compose(x: Any) -> Any:
        y = _convolve(x, expansion * shape[-1]) if expansion > 1 else x
        y = layers.DepthwiseConv2D(
            3, stride, "same", use_bias=False, depthwise_initializer="he_normal"
        )(y)
        y = layers.ReLU(6.0)(make_batch_norm()(y))
        y = make_batch_norm()(layers.Conv2D(channels, 1, use_bias=False)(y))
        return layers.Add()([x, y]) if stride == 1 and shape[-1] == channels else y

    return _model(shape, compose)


def _convolve(x: Any, channels: int, kernel: int = 1) -> Any:
    x = layers.Conv2D(
        channels, kernel, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    return layers.ReLU(6.0)(make_batch_norm()(x))
