"""Building blocks with binary (eBNN, DDNN III-A; notes A3) and with float weights."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers


@tf.custom_gradient  # type: ignore[untyped-decorator]
def sign(x: Any) -> tuple[Any, Any]:
    """Sign of x as -1 or +1, +1 for 0; straight-through gradient where |x| <= 1 (notes A3)."""
    y = tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x))
    return y, lambda gradient: gradient * tf.cast(tf.abs(x) <= 1, x.dtype)


# Registered classes can be loaded from .keras files.
_register = keras.saving.register_keras_serializable(package="ddnn")


@_register
class Sign(layers.Layer):  # type: ignore[misc]
    """Binary activation."""

    def call(self, x: Any) -> Any:
        return sign(x)


@_register
class ClipToOne(keras.constraints.Constraint):  # type: ignore[misc]
    """Keeps shadow weights in [-1, 1], where the straight-through gradient is not zero."""

    def __call__(self, weights: Any) -> Any:
        return keras.ops.clip(weights, -1.0, 1.0)


@_register
class BinaryConv2D(layers.Layer):  # type: ignore[misc]
    """3x3 convolution, stride 1, padding 1, weights sign(shadow weights), no bias."""

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(**options)
        self.filters = filters

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(3, 3, shape[-1], self.filters),
            initializer="glorot_uniform",
            constraint=ClipToOne(),
        )

    def call(self, x: Any) -> Any:
        return tf.nn.conv2d(x, sign(tf.convert_to_tensor(self.kernel)), 1, "SAME")


@_register
class BinaryDense(layers.Layer):  # type: ignore[misc]
    """Fully connected, weights sign(shadow weights), no bias."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units), initializer="glorot_uniform", constraint=ClipToOne()
        )

    def call(self, x: Any) -> Any:
        return tf.matmul(x, sign(tf.convert_to_tensor(self.kernel)))


def make_batch_norm(name: str | None = None) -> Any:
    """A batch normalization layer with the settings of all blocks."""
    return layers.BatchNormalization(momentum=0.95, epsilon=1e-3, name=name)


def add_conv_p(x: Any, filters: int, pool_stride: int = 2) -> Any:
    """Add a ConvP block without its activation: conv, max-pool 3x3, batch norm (notes A3)."""
    x = BinaryConv2D(filters)(x)
    x = layers.MaxPooling2D(3, pool_stride, "same")(x)
    return make_batch_norm()(x)


def add_fc(x: Any, units: int) -> Any:
    """Add an FC block of an exit: binary weights, batch norm, no activation (notes A3)."""
    return make_batch_norm()(BinaryDense(units)(layers.Flatten()(x)))


def add_conv(
    x: Any, filters: int, kernel: int = 3, stride: int = 1, name: str | None = None
) -> Any:
    """Add a float block: conv, batch norm, ReLU. `name` is the convolution's."""
    x = layers.Conv2D(
        filters, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    return layers.ReLU()(make_batch_norm(name and f"{name}_norm")(x))
