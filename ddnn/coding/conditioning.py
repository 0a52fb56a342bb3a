"""Condition numbers: the factor by which decoding may magnify the rounding of the answers.

In the 2-norm, from singular values: for systematic codes, where most rows have one uncoded block,
from those of a small matrix with the same condition; for other codes up to `DENSE_LIMIT` unknowns
from those of the whole system, in batches. Beyond that, where more than `DENSE_LIMIT` rows combine
several blocks, in the 1-norm, estimated from a sparse factorization.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import linalg as sparse_linalg

from ddnn.coding.patterns import Patterns, mark_survivors

DENSE_LIMIT = 128
SMALL_FROM = 64  # unknowns; below, whole systems in batches are faster
BATCH_NUMBERS = 2**18  # in the matrices that are decomposed at once: they fit into the caches


def find_uncoded_blocks(rows: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each row its uncoded block (its only coefficient is 1), else -1: int [rows]."""
    largest = np.abs(rows).argmax(axis=1)
    uncoded = ((rows != 0).sum(axis=1) == 1) & (rows[np.arange(len(rows)), largest] == 1)
    return np.where(uncoded, largest, -1)


def compute_conditions(
    generator: NDArray[np.float64], stragglers: Patterns
) -> Iterator[NDArray[np.float64]]:
    """The condition of the rows without each straggler set, in order, batch by batch.

    generator: [n, k]; stragglers: [sets, s]
    """
    n, k = generator.shape
    left = n - stragglers.shape[1]
    blocks = find_uncoded_blocks(generator)
    one_by_one = left == k and (k > DENSE_LIMIT or _is_systematic(blocks, k))
    step = 1 if one_by_one else max(1, BATCH_NUMBERS // (left * k))
    for start in range(0, len(stragglers), step):
        present = mark_survivors(n, stragglers[start : start + step])
        if one_by_one:
            yield np.array([_compute_square_condition(generator, blocks, present[0])])
        else:
            yield _compute_two_norm_conditions(generator[np.nonzero(present)[1].reshape(-1, left)])


def compute_condition(rows: NDArray[np.float64]) -> float:
    """The condition number of one square system; inf where it is singular in floating point."""
    return _compute_square_condition(rows, find_uncoded_blocks(rows), np.ones(len(rows), bool))


def _is_systematic(blocks: NDArray[np.intp], k: int) -> bool:
    """Whether so few rows combine several blocks that the smaller matrix is faster."""
    mixed = int((blocks < 0).sum())
    return mixed <= DENSE_LIMIT and (k > DENSE_LIMIT or (k >= SMALL_FROM and 4 * mixed <= k))


def _compute_square_condition(
    generator: NDArray[np.float64], blocks: NDArray[np.intp], present: NDArray[np.bool_]
) -> float:
    """The condition of the rows that are present, as many as there are columns."""
    selected = blocks[present]
    if _is_systematic(selected, len(selected)):
        mixed = generator[present & (blocks < 0)]
        return _compute_systematic_condition(mixed, selected[selected >= 0])
    rows = generator[present]
    if len(rows) > DENSE_LIMIT:
        return _estimate_one_norm_condition(rows)
    return float(_compute_two_norm_conditions(rows[None])[0])


def _compute_two_norm_conditions(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.linalg.svd(matrices, compute_uv=False)
    with np.errstate(all="ignore"):
        ratio = values[:, 0] / values[:, -1]
    return np.where(values[:, -1] > 0, ratio, np.inf)


def _compute_systematic_condition(mixed: NDArray[np.float64], known: NDArray[np.intp]) -> float:
    """2-norm condition of [[I, 0], [K, R]], K = mixed[:, known], R = mixed[:, missing].

    With K = L Q, Q of orthonormal rows, an orthogonal change of the known blocks turns it into
    [[I, 0], [L, R]] and ones (derived here): of at most twice the rows of `mixed`.
    """
    missing = np.setdiff1d(np.arange(mixed.shape[1]), known)
    if len(missing) != len(mixed):
        return float("inf")
    if not len(missing):
        return 1.0
    lower = linalg.qr(mixed[:, known].T, mode="r")[0][: len(mixed)].T
    ones = lower.shape[1]
    small = np.block([[np.eye(ones), np.zeros((ones, len(missing)))], [lower, mixed[:, missing]]])
    values = np.linalg.svd(small, compute_uv=False)
    with np.errstate(all="ignore"):
        ratio = max(values[0], 1.0) / min(values[-1], 1.0)
    return float(ratio) if values[-1] > 0 else float("inf")


def _estimate_one_norm_condition(rows: NDArray[np.float64]) -> float:
    """1-norm condition (Higham and Tisseur's block algorithm, in scipy)."""
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
