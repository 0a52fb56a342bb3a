"""Condition numbers: how much decoding may magnify the rounding of the answers.

The 2-norm, by singular values: where most rows carry one block (systematic codes), those of a small
matrix that has the same; else of the whole system up to `DENSE_LIMIT` unknowns, in batches. Beyond,
where more than `DENSE_LIMIT` rows carry several blocks, the 1-norm, estimated from a sparse
factorization.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import linalg as sparse_linalg

from ddnn.coding.patterns import Patterns, survivors

DENSE_LIMIT = 128
SMALL_FROM = 64  # unknowns; below, whole systems in batches are faster
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
    blocks = unit_blocks(generator)
    one_by_one = left == k and (k > DENSE_LIMIT or _is_systematic(blocks, k))
    step = 1 if one_by_one else max(1, BATCH_NUMBERS // (left * k))
    for start in range(0, len(gone), step):
        alive = survivors(n, gone[start : start + step])
        if one_by_one:
            yield np.array([_of_square(generator, blocks, alive[0])])
        else:
            yield _two_norm(generator[np.nonzero(alive)[1].reshape(-1, left)])


def condition(rows: NDArray[np.float64]) -> float:
    """The condition number of one square system; inf where it is singular in floating point."""
    return _of_square(rows, unit_blocks(rows), np.ones(len(rows), bool))


def _is_systematic(blocks: NDArray[np.intp], k: int) -> bool:
    """Whether few enough rows are mixed for the smaller matrix to pay."""
    mixed = int((blocks < 0).sum())
    return mixed <= DENSE_LIMIT and (k > DENSE_LIMIT or (k >= SMALL_FROM and 4 * mixed <= k))


def _of_square(
    generator: NDArray[np.float64], blocks: NDArray[np.intp], alive: NDArray[np.bool_]
) -> float:
    """The condition of the rows that are alive, as many as there are columns."""
    there = blocks[alive]
    if _is_systematic(there, len(there)):
        return _systematic(generator[alive & (blocks < 0)], there[there >= 0])
    rows = generator[alive]
    return float(_two_norm(rows[None])[0]) if len(rows) <= DENSE_LIMIT else _sparse(rows)


def _two_norm(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.linalg.svd(matrices, compute_uv=False)
    with np.errstate(all="ignore"):
        ratio = values[:, 0] / values[:, -1]
    return np.where(values[:, -1] > 0, ratio, np.inf)


def _systematic(mixed: NDArray[np.float64], known: NDArray[np.intp]) -> float:
    """2-norm of [[I, 0], [K, R]], K = mixed[:, known], R = mixed[:, missing].

    With K = L Q, Q of orthonormal rows, an orthogonal change of the known blocks turns it into
    [[I, 0], [L, R]] and ones (derived here): at most twice as large as `mixed` has rows.
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
