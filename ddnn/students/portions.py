"""Portions of a teacher's features: join them, fill the lost ones, compare replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import is_close

Features = NDArray[np.float32]


def join_portions(
    portions: Mapping[int, NDArray[Any]],
    filters: Sequence[Sequence[int] | NDArray[np.intp]],
    fill: Features,
) -> Features:
    """The teacher's features [..., M] from the portions [..., |P_k|] by group, at least one.

    filters: P_k of each group, together 0 to M-1. fill: float32 [M], the constants in place of the
    filters of a group without a portion.
    """
    leading = next(iter(portions.values())).shape[:-1]
    features = np.empty((*leading, len(fill)), np.float32)
    for group, indices in enumerate(filters):
        features[..., indices] = portions.get(group, fill[indices])
    return features


def find_minority(replicas: Mapping[str, NDArray[Any]]) -> frozenset[str] | None:
    """Who differs from more than half of the replicas; None where no more than half agree.

    Replicas agree where they differ by no more than processors' kernels do: members of one group
    may be of different kinds.
    """
    for replica in replicas.values():
        others = frozenset(name for name, other in replicas.items() if not _agree(other, replica))
        if 2 * len(others) < len(replicas):
            return others
    return None


def _agree(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return np.array_equal(a, b) or is_close(a, b)
