"""Sensor fusion: MP, AP and CC over the members that are present (DDNN III-B; notes A2).

One function aggregates class scores at an exit and feature maps before a section. Absent members
do not contribute: the maximum and the mean leave them out, and the concatenation holds zeros in
their place (binary features are -1 or +1, so that zero stands for neither).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

Scheme = Literal["MP", "AP", "CC"]
SCHEMES: tuple[Scheme, ...] = ("MP", "AP", "CC")


def aggregate(
    values: Sequence[NDArray[Any] | None], scheme: Scheme, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Fuse one array per member; None = absent.

    values: n arrays float32 `shape`. Returns `shape` for MP and AP, and for CC `shape` with the
    last axis n times as long, members in order. With no member present: zeros. Raises ConfigError
    for another scheme.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme {scheme!r}; expected one of {', '.join(SCHEMES)}")
    if scheme == "CC":
        *lead, last = shape
        side_by_side = np.zeros((*lead, last * len(values)), np.float32)
        for index, value in enumerate(values):
            if value is not None:
                side_by_side[..., index * last : (index + 1) * last] = value
        return side_by_side
    present = [value for value in values if value is not None]
    if not present:
        return np.zeros(shape, np.float32)
    stacked: NDArray[np.float32] = np.stack(present).astype(np.float32, copy=False)
    return np.asarray(stacked.max(axis=0) if scheme == "MP" else stacked.mean(axis=0))
