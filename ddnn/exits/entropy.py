"""The certainty of an exit: normalized entropy (DDNN, section III-D; paper notes A5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis; float32 in, float32 out."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def normalized_entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """eta(x) = -sum_i x_i log x_i / log |C| in [0, 1]; 0 is certain, 1 is uniform."""
    classes = probabilities.shape[-1]
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    eta: NDArray[np.float32] = -(probabilities * logs).sum(axis=-1) / np.log(np.float32(classes))
    return np.clip(eta, 0, 1).astype(np.float32)
