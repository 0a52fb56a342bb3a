"""Codes of every kind, blocks for them, and the answers that stragglers leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ddnn.coding import (
    Code,
    make_dense_gaussian,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    make_parity,
    make_polynomial,
    make_replication,
    make_uncoded,
    search_code,
)

MAKERS: dict[str, Callable[[], Code]] = {
    "uncoded": lambda: make_uncoded(5),
    "parity": lambda: make_parity(6),
    "replication": lambda: make_replication(7, 2),
    "mds": lambda: make_mds(8, 3),
    "mds without parity": lambda: make_mds(4, 0),
    "mds of one block": lambda: make_mds(3, 2),
    "low weight": lambda: make_low_weight(9, 3),
    "low weight, s=0": lambda: make_low_weight(4, 0),
    "low weight, k=1": lambda: make_low_weight(4, 3),
    "low weight, s>k": lambda: make_low_weight(7, 4),
    "polynomial": lambda: make_polynomial(7, 2),
    "dense": lambda: make_dense_gaussian(7, 2),
    "own supports": lambda: search_code([(0, 1), (1, 2), (0, 2), (0, 1, 2)], 3, 1),
    "own generator": lambda: Code([[1, 0], [0, 1], [1, 2]], 1),
}
PRODUCTS: dict[str, Callable[[], Code]] = {
    "2x2": lambda: make_low_weight_product(2, 2, 1),
    "2x3": lambda: make_low_weight_product(2, 3, 2),
    "1x3": lambda: make_low_weight_product(1, 3, 1),
    "s=0": lambda: make_low_weight_product(2, 2, 0),
}


def draw_blocks(code: Code, dtype: Any = np.float64, shape: tuple[int, ...] = (4, 5)) -> list[Any]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(code.k)]


def drop_stragglers(answers: list[Any], stragglers: tuple[int, ...]) -> dict[int, Any]:
    """Return the answers of the other workers, by worker."""
    return {i: answer for i, answer in enumerate(answers) if i not in stragglers}


def compute_relative_error(decoded: list[Any], direct: list[Any]) -> float:
    return float(np.linalg.norm(np.subtract(decoded, direct)) / np.linalg.norm(direct))
