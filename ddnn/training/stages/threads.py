"""How many threads TensorFlow computes with."""

from __future__ import annotations

import tensorflow as tf

from ddnn.errors import LocalProtocolError


def set_threads(count: int) -> None:
    """Let TensorFlow compute one operation at a time, with so many threads.

    Before its first operation only, because its threads cannot be replaced: else
    LocalProtocolError. With one thread each stage of a pipeline has one core, which experiments on
    one machine need, and sums have the same order in each run.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        raise LocalProtocolError(
            f"{count} threads: TensorFlow computes already; set them before its first operation"
        ) from None
