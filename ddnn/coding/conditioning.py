"""Condition numbers: how much decoding may magnify the rounding of the answers.

2-norm by singular values up to `DENSE_LIMIT` unknowns, in batches. Beyond, where most rows carry
one block (systematic codes), the 1-norm from the small system of the missing blocks, exactly; else
an estimate of the 1-norm from a sparse factorization.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg

from ddnn.coding.patterns import Patterns, survivors

DENSE_LIMIT = 128
BATCH_NUMBERS = 2**18  # of matrices decomposed at once: stays within the caches


def unit_blocks(rows: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each row the block that it carries bare (one coefficient, 1), else -1."""
    largest = np.abs(rows).argmax(axis=1)
    bare = ((rows != 0).sum(axis=1) == 1) & (rows[np.arange(len(rows)), largest] == 1)
    return np.where(bare, largest, -1)


def conditions(generator: NDArray[np.float64], gone: Patterns) -> Iterator[NDArray[np.float64]]:
    """The condition of the rows left by each straggler set, in order, batch by batch."""
    n, k = generator.shape
    left = n - gone.shape[1]
    step = max(1, BATCH_NUMBERS // (left * k)) if k <= DENSE_LIMIT else 1
    for start in range(0, len(gone), step):
        alive = survivors(n, gone[start : start + step])
        rows = np.nonzero(alive)[1].reshape(-1, left)
        if k <= DENSE_LIMIT or left > k:
            yield _two_norm(generator[rows])
        else:
            yield np.array([condition(generator[rows[0]])])


def condition(rows: NDArray[np.float64]) -> float:
    """The condition number of one square system; inf where it is singular in floating point."""
    k = len(rows)
    if k <= DENSE_LIMIT:
        return float(_two_norm(rows[None])[0])
    blocks = unit_blocks(rows)
    known = blocks[blocks >= 0]
    mixed = rows[blocks < 0]
    if len(mixed) <= DENSE_LIMIT:
        return _systematic(rows, known, mixed)
    return _sparse(rows)


def _two_norm(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.linalg.svd(matrices, compute_uv=False)
    with np.errstate(divide="ignore"):
        ratio: NDArray[np.float64] = values[:, 0] / values[:, -1]
    return ratio


def _systematic(
    rows: NDArray[np.float64], known: NDArray[np.intp], mixed: NDArray[np.float64]
) -> float:
    """1-norm: the inverse is the identity on known blocks, and [-R^-1 K, R^-1] on missing ones."""
    missing = np.setdiff1d(np.arange(rows.shape[1]), known)
    if len(missing) != len(mixed):
        return float("inf")
    if not len(missing):
        return 1.0
    try:
        inverse = np.linalg.inv(mixed[:, missing])
    except np.linalg.LinAlgError:
        return float("inf")
    through = np.abs(inverse @ mixed[:, known]).sum(axis=0)
    of_known = 1 + through.max(initial=0.0)
    of_inverse = max(of_known, np.abs(inverse).sum(axis=0).max())
    return float(np.abs(rows).sum(axis=0).max() * of_inverse)


def _sparse(rows: NDArray[np.float64]) -> float:
    """1-norm, estimated (Higham and Tisseur's block algorithm, in scipy)."""
    matrix = sparse.csc_array(rows)
    try:
        factors = sparse_linalg.splu(matrix)
    except RuntimeError:  # exactly singular
        return float("inf")
    inverse = sparse_linalg.LinearOperator(
        matrix.shape,
        dtype=np.float64,
        matvec=factors.solve,
        matmat=factors.solve,
        rmatvec=lambda x: factors.solve(x, trans="T"),
        rmatmat=lambda x: factors.solve(x, trans="T"),
    )
    with np.errstate(all="ignore"):
        estimate = sparse_linalg.onenormest(inverse) * np.abs(rows).sum(axis=0).max()
    return float(estimate) if np.isfinite(estimate) else float("inf")
