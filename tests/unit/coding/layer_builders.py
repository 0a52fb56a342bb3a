"""Layers of every kind and codes to split them with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ddnn.coding.code import Code
from ddnn.coding.constructions import (
    make_dense_gaussian,
    make_low_weight,
    make_mds,
    make_parity,
    make_polynomial,
    make_replication,
    make_uncoded,
)
from ddnn.coding.layers import Linear, SplitLayer

CODES: dict[str, Callable[[], Code]] = {
    "uncoded": lambda: make_uncoded(4),
    "parity": lambda: make_parity(5),
    "mds": lambda: make_mds(6, 2, seed=3),
    "low_weight": lambda: make_low_weight(6, 2, seed=3),
    "low_weight k<=s": lambda: make_low_weight(5, 3, seed=3),
    "replication": lambda: make_replication(6, 1),
    "polynomial": lambda: make_polynomial(6, 2),
    "dense_gaussian": lambda: make_dense_gaussian(6, 2, seed=3),
    "one worker": lambda: make_uncoded(1),
    "one block": lambda: make_parity(2),
}


def make_rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def make_dense_layer(
    units: int, bias: bool, density: float = 1.0, dtype: type = np.float32
) -> Linear:
    kernel = make_rng(5).normal(size=(9, units)) * (make_rng(6).random((9, units)) < density)
    return Linear("dense", kernel.astype(dtype), make_rng(7).normal(size=units) if bias else None)


def make_conv_layer(units: int, bias: bool, **options: Any) -> Linear:
    kernel = make_rng(5).normal(size=(3, 3, 2, units)).astype(np.float32)
    return Linear("conv2d", kernel, make_rng(7).normal(size=units) if bias else None, **options)


LAYERS: dict[str, tuple[Callable[[], Linear], tuple[int, ...]]] = {
    "dense, divisible": (lambda: make_dense_layer(12, True), (9,)),
    "dense, uneven, no bias": (lambda: make_dense_layer(11, False), (9,)),
    "dense, several vectors": (lambda: make_dense_layer(7, True), (2, 3, 9)),
    "dense, fewer outputs than blocks": (lambda: make_dense_layer(2, True), (9,)),
    "dense, one output": (lambda: make_dense_layer(1, True), (9,)),
    "dense, sparse": (lambda: make_dense_layer(13, True, 0.1), (4, 9)),
    "dense, all zeros": (lambda: make_dense_layer(5, True, 0.0), (9,)),
    "conv2d, uneven": (lambda: make_conv_layer(7, True), (6, 5, 2)),
    "conv2d, same, strides": (
        lambda: make_conv_layer(5, True, padding="same", strides=(2, 3)),
        (2, 8, 7, 2),
    ),
    "conv2d, dilated, no bias": (lambda: make_conv_layer(3, False, dilation=(2, 1)), (8, 5, 2)),
}


def make_case(layer: str) -> tuple[Linear, np.ndarray]:
    make, shape = LAYERS[layer]
    return make(), make_rng(8).normal(size=shape).astype(np.float32)


def compute_answers(split: SplitLayer, x: np.ndarray) -> dict[int, np.ndarray]:
    return {worker: shard(x) for worker, shard in enumerate(split.shards)}
