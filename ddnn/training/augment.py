"""Random changes of training images: geometry, colour, cut-outs and noise, as tensor operations."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import tensorflow as tf


class Augmentation(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the random changes. Angles in degrees, lengths as shares of the image."""

    rotation_deg: float = 10.0
    log_scale: float = 0.1
    log_aspect: float = 0.1
    shift: float = 0.06
    flip: bool = True
    brightness: float = 0.4  # log gain of all views of a sample
    hue_turns: float = 0.25  # of all views of a sample
    saturation: float = 0.5
    grey: float = 0.3  # share of samples without colour
    view_brightness: float = 0.08  # in addition, of each view
    noise: float = 0.02
    cutout: float = 0.3  # share of views with a hole


NONE = Augmentation(
    rotation_deg=0,
    log_scale=0,
    log_aspect=0,
    shift=0,
    flip=False,
    brightness=0,
    hue_turns=0,
    saturation=0,
    grey=0,
    view_brightness=0,
    noise=0,
    cutout=0,
)


class Draw(msgspec.Struct, frozen=True):
    """The random numbers for one batch; tensors of [batch * views, …]."""

    warp: Any  # [n, 8] projective transform
    colour: Any  # [n, 3, 3]
    offset: Any  # [n, 3]
    hole: Any  # [n, 4] left, right, top, bottom
    seed: Any


def draw(
    generator: np.random.Generator,
    augmentation: Augmentation,
    batch: int,
    views: int,
    size: tuple[int, int],
    source_size: tuple[int, int] | None = None,
) -> Draw:
    """Draw the random numbers for one batch.

    size: height and width of the resulting images, in pixels; source_size: of the original images,
    if larger. Scaling down and warping in one step keeps them as sharp as the images of the test
    split.
    """
    (height, width), (source_height, source_width) = size, source_size or size
    each, rig = (batch, views), (batch, 1)

    def uniform(shape: tuple[int, ...], bound: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        return generator.uniform(-bound, bound, shape)

    angle = np.deg2rad(uniform(each, augmentation.rotation_deg))
    scale = np.exp(uniform(each, augmentation.log_scale))
    aspect = np.exp(uniform(rig, augmentation.log_aspect))
    flip = np.where((generator.random(each) < 0.5) & augmentation.flip, -1.0, 1.0)
    wide = source_width / width * aspect / scale
    high = source_height / height / (aspect * scale)
    a, b = np.cos(angle) * wide * flip, -np.sin(angle) * high
    c, d = np.sin(angle) * wide * flip, np.cos(angle) * high
    x, y = (width - 1) / 2, (height - 1) / 2  # the middles
    from_x, from_y = (source_width - 1) / 2, (source_height - 1) / 2
    right = uniform(each, augmentation.shift) * source_width
    down = uniform(each, augmentation.shift) * source_height
    # Ratios of 1 leave the numbers of square images as they are, to the last bit.
    high_by, wide_by = y / x, x / y
    zero = np.zeros(each)
    warp = np.stack(
        [
            a,
            b,
            from_x - (a + b * high_by) * x + right,
            c,
            d,
            from_y - (c * wide_by + d) * y + down,
            zero,
            zero,
        ],
        -1,
    )

    grey = np.full((3, 3), 1 / 3)
    turn = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    saturation = np.where(
        generator.random(rig) < augmentation.grey, 0.0, 1 + uniform(rig, augmentation.saturation)
    )[..., None, None]
    hue = 2 * np.pi * uniform(rig, augmentation.hue_turns)[..., None, None]
    chroma = np.cos(hue) * (np.eye(3) - grey) + np.sin(hue) * turn
    gain = np.exp(uniform(rig, augmentation.brightness))[..., None, None]
    tint = np.exp(uniform((batch, 1, 1, 3), augmentation.brightness / 3))
    view_gain = np.exp(uniform(each, augmentation.view_brightness))[..., None, None]
    colour = (grey + saturation * chroma) * gain * tint * view_gain
    offset = uniform((batch, 1, 3), augmentation.brightness / 4) + uniform(
        (batch, views, 1), augmentation.view_brightness / 2
    )

    side = min(height, width)
    reach = generator.integers(side // 10, side // 4, each)
    reach *= generator.random(each) < augmentation.cutout
    column, row = generator.integers(0, width, each), generator.integers(0, height, each)
    hole = np.stack([column - reach, column + reach, row - reach, row + reach], -1)
    n = batch * views
    return Draw(
        tf.constant(warp.reshape(n, 8), tf.float32),
        tf.constant(colour.reshape(n, 3, 3), tf.float32),
        tf.constant(offset.reshape(n, 3), tf.float32),
        tf.constant(hole.reshape(n, 4), tf.int32),
        tf.constant([int(generator.integers(2**31)), 0], tf.int32),
    )


def apply(images: Any, numbers: Draw, noise: float, shape: tuple[int, int, int]) -> Any:
    """Apply drawn changes: uint8 [batch, views, h, w, 3] -> float32 [batch, views, *shape], 0..255.

    noise: standard deviation, of full scale. Blank views stay blank.
    """
    batch, views, *source, _ = images.shape
    height, width, _ = shape
    flat = tf.reshape(tf.cast(images, tf.float32), [-1, *source, 3]) / 255.0
    seen = tf.reduce_max(flat, [1, 2, 3], keepdims=True) > 0
    x = tf.raw_ops.ImageProjectiveTransformV3(
        images=flat,
        transforms=numbers.warp,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    x = tf.matmul(tf.reshape(x, [-1, height * width, 3]), numbers.colour) + numbers.offset[:, None]
    x = tf.reshape(x, [-1, height, width, 3])
    x += tf.random.stateless_normal(tf.shape(x), numbers.seed, stddev=noise)
    left, right, top, bottom = (numbers.hole[:, i : i + 1] for i in range(4))
    column, row = tf.range(width)[None], tf.range(height)[None]
    in_hole = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[
        :, None, :
    ]
    x = tf.where(in_hole[..., None], 0.5, x)
    x = tf.where(seen, tf.clip_by_value(x, 0.0, 1.0), 0.0)
    return tf.reshape(x * 255.0, [batch, views, height, width, 3])
