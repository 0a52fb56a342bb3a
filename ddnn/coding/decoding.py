"""Decoding plans: what to do with the answers of one set of workers, worked out once.

A block that a worker carries bare is that worker's answer, bit for bit. The missing blocks come
from as many further answers, chosen for a well-conditioned system, by one matrix that also holds
the parity checks of the surplus answers: a hot decode is one small product. Where hundreds of
blocks are missing and the system is sparse, a sparse factorization stands for the inverse.

The checks are an orthonormal basis of what the answers must be orthogonal to, so rounding passes
through them without being magnified, unlike through the residual of decoded blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse import linalg as sparse_linalg

from ddnn.coding.conditioning import condition, unit_blocks

SPARSE_FROM = 128  # missing blocks
SPARSE_BELOW = 0.25  # density of their system


@dataclass(frozen=True, eq=False)
class Plan:
    """How the answers of one set of workers, ordered by id, become the k blocks."""

    sources: tuple[int, ...]  # per block: the row that is its answer, or -1
    missing: NDArray[np.intp]  # blocks to solve for
    solve: NDArray[np.float64]  # [missing, answers]; empty where `sparse_solve` stands for it
    checks: NDArray[np.float64]  # [surplus, answers], orthonormal; times answers = 0
    condition: float
    sparse_solve: Callable[[NDArray[Any]], NDArray[np.float64]] | None = None
    _matrices: dict[np.dtype[Any], NDArray[Any]] = field(default_factory=dict, repr=False)

    def apply(self, flat: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """flat: [answers, size]. Returns the missing blocks and the checks' values."""
        matrix = self._matrices.get(flat.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks for overflow
            if matrix is None:
                matrix = np.concatenate([self.solve, self.checks]).astype(flat.dtype)
                self._matrices[flat.dtype] = matrix
            product = matrix @ flat
            if self.sparse_solve is not None:
                return self.sparse_solve(flat).astype(flat.dtype), product
        return product[: len(self.missing)], product[len(self.missing) :]

    def suspects(self, flat: NDArray[Any], tolerance: float) -> tuple[int, ...]:
        """The row without which all others agree, where it is clear which."""
        if len(self.checks) < 2:
            return ()
        scaled = flat.astype(np.float64)
        values = self.checks @ (scaled / np.abs(scaled).max())
        left = np.full(len(flat), np.inf)  # what is off once the checks of that row are left out
        for row, direction in enumerate(self.checks.T):
            length = np.linalg.norm(direction)
            if length > tolerance:  # else no check looks at this row
                unit = direction / length
                left[row] = np.abs(values - np.outer(unit, unit @ values)).max()
        best = int(left.argmin())
        rounding = len(flat) * np.finfo(flat.dtype).eps
        clear = 10 * max(left[best], rounding) < np.delete(left, best).min()
        return (best,) if clear and left[best] <= tolerance else ()


def make_plan(rows: NDArray[np.float64]) -> Plan:
    """rows: [answers, k], the generator's rows of the workers that answered, of rank k."""
    answers, k = rows.shape
    bare = unit_blocks(rows)
    known, first = np.unique(bare[bare >= 0], return_index=True)
    direct = np.flatnonzero(bare >= 0)[first]
    sources = np.full(k, -1)
    sources[known] = direct
    missing = np.flatnonzero(sources < 0)
    others = np.setdiff1d(np.arange(answers), direct)
    system = rows[others][:, missing]
    if len(others) > len(missing):  # pivots: the rows that are most independent
        order = linalg.qr(system.T, mode="r", pivoting=True)[1]
        picked = np.sort(order[: len(missing)])
        others, system = others[picked], system[picked]
    chosen = np.concatenate([direct, others])
    checks = np.zeros((0, answers))
    if answers > k:
        checks = np.linalg.qr(rows, mode="complete")[0][:, k:].T
    worst = condition(rows[chosen])
    plan = Plan(tuple(sources.tolist()), missing, np.zeros((0, answers)), checks, worst)
    if not len(missing) or not np.isfinite(worst):
        return plan
    to_known = rows[others][:, known]
    if len(missing) >= SPARSE_FROM and np.count_nonzero(system) < SPARSE_BELOW * system.size:
        return _sparse_plan(plan, system, to_known, others, direct)
    solve = np.zeros((len(missing), answers))
    solve[:, others] = np.linalg.inv(system)
    with np.errstate(over="ignore", invalid="ignore"):
        solve[:, direct] = -solve[:, others] @ to_known
    return Plan(plan.sources, missing, solve, checks, worst)


def _sparse_plan(
    plan: Plan,
    system: NDArray[np.float64],
    to_known: NDArray[np.float64],
    others: NDArray[np.intp],
    direct: NDArray[np.intp],
) -> Plan:
    factors = sparse_linalg.splu(sparse.csc_array(system))
    known = sparse.csr_array(to_known)

    def solve(flat: NDArray[Any]) -> NDArray[np.float64]:
        wanted = flat[others].astype(np.float64) - known @ flat[direct].astype(np.float64)
        solved: NDArray[np.float64] = factors.solve(wanted)
        return solved

    return Plan(plan.sources, plan.missing, plan.solve, plan.checks, plan.condition, solve)
