"""Decoding plans: how the answers of one set of workers become blocks, computed once per set.

A block that a worker has uncoded is that worker's answer, bit for bit. The missing blocks are
solved for from as many other answers, selected for a well-conditioned system. One matrix contains
the solution and the parity checks of the surplus answers, so that decoding with a cached plan is
one small product. Where hundreds of blocks are missing and the system is sparse, a sparse
factorization replaces the inverse.

The checks are an orthonormal basis of the space that is orthogonal to all correct answers, so they
do not magnify rounding errors, unlike the residual of decoded blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import linalg as sparse_linalg

from ddnn.coding.conditioning import compute_condition, find_uncoded_blocks

SPARSE_FROM = 128  # missing blocks
SPARSE_BELOW = 0.25  # density of their system


@dataclass(frozen=True, eq=False)
class DecodingPlan:
    """How the answers of one set of workers, ordered by id, become the k blocks."""

    sources: tuple[int, ...]  # per block: the row that is its answer, or -1
    missing: NDArray[np.intp]  # blocks to solve for
    solve: NDArray[np.float64]  # [missing, answers]; empty where `sparse_solve` replaces it
    checks: NDArray[np.float64]  # [surplus, answers], orthonormal; times answers = 0
    condition: float
    sparse_solve: Callable[[NDArray[Any]], NDArray[np.float64]] | None = None
    _matrices: dict[np.dtype[Any], NDArray[Any]] = field(default_factory=dict, repr=False)

    def apply(self, flat: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The missing blocks [missing, size] and the values of the checks [surplus, size].

        flat: the answers [answers, size].
        """
        matrix = self._matrices.get(flat.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller checks for overflow
            if matrix is None:
                matrix = np.concatenate([self.solve, self.checks]).astype(flat.dtype)
                self._matrices[flat.dtype] = matrix
            product = matrix @ flat
            if self.sparse_solve is not None:
                return self.sparse_solve(flat).astype(flat.dtype), product
        return product[: len(self.missing)], product[len(self.missing) :]

    def find_faulty_rows(self, flat: NDArray[Any], tolerance: float) -> tuple[int, ...]:
        """The row without which all others agree; empty where more than one may be that row."""
        if len(self.checks) < 2:
            return ()
        scaled = flat.astype(np.float64)
        values = self.checks @ (scaled / np.abs(scaled).max())
        residuals = np.full(len(flat), np.inf)  # of the checks, without the part of that row
        for row, direction in enumerate(self.checks.T):
            length = np.linalg.norm(direction)
            if length > tolerance:  # else no check depends on this row
                unit = direction / length
                residuals[row] = np.abs(values - np.outer(unit, unit @ values)).max()
        best = int(residuals.argmin())
        rounding = len(flat) * np.finfo(flat.dtype).eps
        unique = 10 * max(residuals[best], rounding) < np.delete(residuals, best).min()
        return (best,) if unique and residuals[best] <= tolerance else ()


def make_decoding_plan(rows: NDArray[np.float64]) -> DecodingPlan:
    """The plan for workers whose rows of the generator are `rows`, [answers, k], of rank k."""
    answers, k = rows.shape
    uncoded = find_uncoded_blocks(rows)
    known, first = np.unique(uncoded[uncoded >= 0], return_index=True)
    direct = np.flatnonzero(uncoded >= 0)[first]
    sources = np.full(k, -1)
    sources[known] = direct
    missing = np.flatnonzero(sources < 0)
    others = np.setdiff1d(np.arange(answers), direct)
    system = rows[others][:, missing]
    if not len(missing):
        others, system = others[:0], system[:0]
    elif len(others) > len(missing):  # take the pivot rows, which are the most independent
        order = linalg.qr(system.T, mode="r", pivoting=True)[1]
        pivots = np.sort(order[: len(missing)])
        others, system = others[pivots], system[pivots]
    solved_from = np.concatenate([direct, others])
    checks = np.zeros((0, answers))
    if answers > k:
        checks = np.linalg.qr(rows, mode="complete")[0][:, k:].T
    worst = compute_condition(rows[solved_from])
    plan = DecodingPlan(tuple(sources.tolist()), missing, np.zeros((0, answers)), checks, worst)
    if not len(missing) or not np.isfinite(worst):
        return plan
    to_known = rows[others][:, known]
    if len(missing) >= SPARSE_FROM and np.count_nonzero(system) < SPARSE_BELOW * system.size:
        return _make_sparse_plan(plan, system, to_known, others, direct)
    solve = np.zeros((len(missing), answers))
    solve[:, others] = np.linalg.inv(system)
    with np.errstate(over="ignore", invalid="ignore"):
        solve[:, direct] = -solve[:, others] @ to_known
    return DecodingPlan(plan.sources, missing, solve, checks, worst)


def _make_sparse_plan(
    plan: DecodingPlan,
    system: NDArray[np.float64],
    to_known: NDArray[np.float64],
    others: NDArray[np.intp],
    direct: NDArray[np.intp],
) -> DecodingPlan:
    factors = sparse_linalg.splu(sparse.csc_array(system))
    known = sparse.csr_array(to_known)

    def solve(flat: NDArray[Any]) -> NDArray[np.float64]:
        wanted = flat[others].astype(np.float64) - known @ flat[direct].astype(np.float64)
        solved: NDArray[np.float64] = factors.solve(wanted)
        return solved

    return DecodingPlan(plan.sources, plan.missing, plan.solve, plan.checks, plan.condition, solve)
