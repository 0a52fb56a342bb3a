"""MP, AP and CC with masks as tensor operations, equal to those of ddnn.exits.aggregate."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ddnn.exits.aggregate import Scheme


def fuse(values: Any, mask: Any, scheme: Scheme) -> Any:
    """Fuse float32 values [batch, members, …, channels] of the members present.

    mask: float32 [batch, members] of 0 and 1. Returns [batch, …, channels], for CC with members
    times as many channels.
    """
    rank = len(values.shape)
    wide = tf.reshape(mask, [-1, values.shape[1], *([1] * (rank - 2))])
    if scheme == "AP":
        return tf.reduce_sum(values * wide, 1) / tf.maximum(tf.reduce_sum(wide, 1), 1.0)
    if scheme == "MP":
        highest = tf.reduce_max(tf.where(wide > 0, values, values.dtype.min), 1)
        return tf.where(tf.reduce_sum(wide, 1) > 0, highest, 0.0)
    members_last = [0, *range(2, rank - 1), 1, rank - 1]
    moved = tf.transpose(values * wide, members_last)
    shape = values.shape
    return tf.reshape(moved, [-1, *shape[2:-1], shape[1] * shape[-1]])
