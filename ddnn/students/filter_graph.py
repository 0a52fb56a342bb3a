"""The filter graph: which filters of the teacher's last convolution belong together."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddnn.errors import ConfigError
from ddnn.students.types import FloatArray

TOP_FILTERS = 50  # the most active filters of an image that count


def build_filter_graph(activations: Any, top: int = TOP_FILTERS) -> FloatArray:
    """The activation-hub graph of NoNN (Bhardwaj et al., arXiv 1907.11804): [filters, filters].

    activations: [images, filters], the spatial means of the last convolution's maps on validation
    images. For each image, with a = max(0, mean) divided by the image's largest, each pair of the
    `top` most active filters adds a_i a_j |a_i - a_j| to its weight.

    Raises ConfigError where the activations have another shape or are not finite.
    """
    values = np.asarray(activations, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ConfigError(
            f"activations of shape {values.shape}: expected [images, filters], not empty; "
            "average the maps over their positions"
        )
    if not np.isfinite(values).all():
        raise ConfigError("activations: a value is not a finite number")
    if top < 2:
        raise ConfigError(f"top is {top}: a pair needs at least 2 filters")
    graph = np.zeros((values.shape[1], values.shape[1]))
    for activity in np.maximum(values, 0):
        largest = activity.max()
        if largest == 0:
            continue
        hubs = np.argsort(-activity, kind="stable")[:top]
        a = activity[hubs] / largest
        graph[np.ix_(hubs, hubs)] += np.outer(a, a) * np.abs(a[:, None] - a)
    return graph
