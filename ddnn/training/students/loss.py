"""The loss of distillation: labels, the teacher's scores, and each portion of its features.

Scores z, features f, K portions, C classes, after NoNN (Bhardwaj et al., arXiv 1907.11804):

    L = (1 - alpha) CE(y, z_S)
      + alpha tau² KL(softmax(z_T / tau) || softmax(z_S / tau))
      + beta / K sum_k || f_S,k / |f_S,k| - f_T,k / |f_T,k| ||²
      + gamma mean (o_S - o_T)²

all averaged over the batch. The KL divergence is summed over the classes; NoNN's code has 2 alpha
tau² and the mean over batch and classes, which is 2 / C of this. NoNN normalizes all features
together and takes the mean of the squares over them with beta 1e4; here each portion has length 1,
so that a weak portion counts as much. The last term is added here: a section's other outputs o,
such as features for the next tier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import tensorflow as tf

TINY = 1e-12  # under the square root of a length


class LossWeights(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of the loss; tau is the temperature."""

    alpha: float = 0.7
    tau: float = 4.0
    beta: float = 4.0
    gamma: float = 1.0


def compute_loss(
    labels: Any,
    outputs: Sequence[Any],
    teacher_outputs: Sequence[Any],
    portions: Sequence[Any],
    teacher_portions: Sequence[Any],
    weights: LossWeights,
) -> Any:
    """The loss of a batch, a float32 scalar.

    labels: int [batch]; outputs: scores [batch, classes], then further outputs; portions: K of
    [batch, height, width, filters], none to leave the features out.
    """
    scores, teacher = outputs[0], teacher_outputs[0]
    loss = (1 - weights.alpha) * compute_cross_entropy(labels, scores)
    loss += weights.alpha * weights.tau**2 * compute_divergence(teacher, scores, weights.tau)
    pairs = list(zip(portions, teacher_portions, strict=True))
    if pairs:
        loss += weights.beta / len(pairs) * tf.add_n([compute_distance(*pair) for pair in pairs])
    for output, target in zip(outputs[1:], teacher_outputs[1:], strict=True):
        loss += weights.gamma * tf.reduce_mean(tf.square(output - target))
    return loss


def compute_cross_entropy(labels: Any, scores: Any) -> Any:
    """Of int labels [batch] and scores [batch, classes], the mean over the batch."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))


def compute_divergence(teacher: Any, student: Any, tau: float) -> Any:
    """KL(teacher || student) of scores [batch, classes] over tau, the mean over the batch."""
    log_teacher = tf.nn.log_softmax(teacher / tau)
    log_student = tf.nn.log_softmax(student / tau)
    each = tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), -1)
    return tf.reduce_mean(each)


def compute_distance(student: Any, teacher: Any) -> Any:
    """Squared distance of a portion's normalized values, the mean over the batch: 0 to 4."""
    return tf.reduce_mean(tf.reduce_sum(tf.square(_normalize(student) - _normalize(teacher)), -1))


def _normalize(values: Any) -> Any:
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    return flat * tf.math.rsqrt(tf.reduce_sum(tf.square(flat), -1, keepdims=True) + TINY)
