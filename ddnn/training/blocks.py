"""Building blocks: binary weights and activations (eBNN, DDNN III-A; notes A3), and float ones."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers


@tf.custom_gradient  # type: ignore[untyped-decorator]
def sign(x: Any) -> tuple[Any, Any]:
    """-1/+1 with 0 -> +1; straight-through gradient where |x| <= 1 (notes A3)."""
    y = tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x))
    return y, lambda gradient: gradient * tf.cast(tf.abs(x) <= 1, x.dtype)


_kept = keras.saving.register_keras_serializable(package="ddnn")  # loads from a .keras file


@_kept
class Sign(layers.Layer):  # type: ignore[misc]
    """Binary activation."""

    def call(self, x: Any) -> Any:
        return sign(x)


@_kept
class ClipToOne(keras.constraints.Constraint):  # type: ignore[misc]
    """Shadow weights stay in [-1, 1], where the straight-through gradient lives."""

    def __call__(self, weights: Any) -> Any:
        return keras.ops.clip(weights, -1.0, 1.0)


@_kept
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


@_kept
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


def batch_norm(name: str | None = None) -> Any:
    return layers.BatchNormalization(momentum=0.95, epsilon=1e-3, name=name)


def conv_p(x: Any, filters: int, pool_stride: int = 2) -> Any:
    """ConvP block up to its binary activation: conv, max-pool 3x3, batch norm (notes A3)."""
    x = BinaryConv2D(filters)(x)
    x = layers.MaxPooling2D(3, pool_stride, "same")(x)
    return batch_norm()(x)


def fc(x: Any, units: int) -> Any:
    """FC block of an exit: binary weights, batch norm, no activation (notes A3)."""
    return batch_norm()(BinaryDense(units)(layers.Flatten()(x)))


def conv(x: Any, filters: int, kernel: int = 3, stride: int = 1, name: str | None = None) -> Any:
    """The float variant's block: conv, batch norm, ReLU. `name` is the convolution's."""
    x = layers.Conv2D(
        filters, kernel, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    return layers.ReLU()(batch_norm(name and f"{name}_norm")(x))
