"""Exact rank of real generators, over a prime field.

Every float is a dyadic rational, so a generator maps exactly into GF(p): numerators times inverse
powers of two. A minor that is not zero mod p is not zero over the rationals, which proves full
rank. A set whose minors are zero mod p is tried with a second prime before it counts as failing (a
nonzero minor vanishes mod both with a probability of about 2^-62).

All sets of workers share one elimination (derived here): with a basis C of k of the n rows, the
generator is [I; P] C up to the order of the rows, and a set that lacks the basis rows M and has
the other rows E decodes exactly where P[E, M], of at most n - k columns, has rank |M|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRIMES = (2**31 - 1, 2**31 - 19)  # below 2^31.5: sums of two products fit into uint64

Residues = NDArray[np.uint64]


def compute_residues(values: NDArray[np.float64], prime: int) -> Residues:
    """The floats as elements of GF(prime), exactly."""
    fraction, exponent = np.frexp(values)
    numerator = np.ldexp(fraction, 53).astype(np.int64)
    exponents, where = np.unique(exponent, return_inverse=True)
    powers = np.array([pow(2, int(e) - 53, prime) for e in exponents], np.uint64)
    positive = (numerator % prime).astype(np.uint64)
    result: Residues = positive * powers[where].reshape(values.shape) % np.uint64(prime)
    return result


def reduce_rows(matrix: Residues, prime: int) -> tuple[Residues, tuple[int, ...]]:
    """The reduced row echelon form and its pivot columns; operations on zeros are skipped."""
    reduced = matrix.copy()
    modulus = np.uint64(prime)
    pivots: list[int] = []
    for column in range(reduced.shape[1]):
        row = len(pivots)
        candidates = np.flatnonzero(reduced[row:, column])
        if not candidates.size:
            continue
        swap = row + candidates[0]
        reduced[[row, swap]] = reduced[[swap, row]]
        inverse = np.uint64(pow(int(reduced[row, column]), -1, prime))
        reduced[row] = reduced[row] * inverse % modulus
        filled = np.flatnonzero(reduced[row])
        others = np.flatnonzero(reduced[:, column])
        others = others[others != row]
        cells = np.ix_(others, filled)
        factors = modulus - reduced[others, column]
        reduced[cells] = (reduced[cells] + factors[:, None] * reduced[row, filled]) % modulus
        pivots.append(column)
        if len(pivots) == len(reduced):
            break
    return reduced, tuple(pivots)


def have_full_column_rank(matrices: Residues, prime: int) -> NDArray[np.bool_]:
    """Whether the columns of each matrix are independent: bool [batch].

    matrices: [batch, rows, columns]
    """
    left = matrices.copy()
    batch, rows, columns = left.shape
    modulus = np.uint64(prime)
    full = np.full(batch, rows >= columns)
    every = np.arange(batch)
    for column in range(min(rows, columns)):
        pivot = column + np.argmax(left[:, column:, column] != 0, axis=1)
        pivot_rows = left[every, pivot]
        left[every, pivot] = left[:, column]
        full &= pivot_rows[:, column] != 0
        # Multiplying both terms instead of inverting the pivot does not change the rank.
        below = left[:, column + 1 :, column + 1 :]
        factors = modulus - left[:, column + 1 :, column]
        left[:, column + 1 :, column + 1 :] = (
            below * pivot_rows[:, column, None, None]
            + factors[:, :, None] * pivot_rows[:, None, column + 1 :]
        ) % modulus
    return full


@dataclass(frozen=True)
class _Form:
    """The generator as [I; P] C mod a prime."""

    prime: int
    basis: NDArray[np.intp]  # [k] rows of C
    rest: NDArray[np.intp]  # [n - k]
    table: Residues  # P [n - k, k]

    def find_full_rank(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        lost, spare = ~present[:, self.basis], present[:, self.rest]
        counts = lost.sum(axis=1)
        result: NDArray[np.bool_] = counts == 0
        for count in np.unique(counts[(counts > 0) & (counts <= spare.sum(axis=1))]):
            sets = np.flatnonzero(counts == count)
            columns = np.nonzero(lost[sets])[1].reshape(-1, count)
            minors = self.table.T[columns].transpose(0, 2, 1) * spare[sets][:, :, None]
            result[sets] = have_full_column_rank(minors.astype(np.uint64), self.prime)
        return result


class ExactRank:
    """Decides exactly whether sets of rows of one generator have rank k."""

    def __init__(self, generator: NDArray[np.float64]) -> None:
        self._generator = generator
        self._forms: dict[int, _Form | None] = {}

    def find_full_rank(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which sets of rows have rank k: bool [sets].

        present: bool [sets, n], the rows in each set.
        """
        result = np.zeros(len(present), bool)
        for prime in PRIMES:
            undecided = np.flatnonzero(~result)
            if undecided.size and (form := self._get_form(prime)):
                result[undecided] = form.find_full_rank(present[undecided])
        return result

    def _get_form(self, prime: int) -> _Form | None:
        """The generator mod a prime; None where all n rows together have a rank below k."""
        if prime not in self._forms:
            n, k = self._generator.shape
            reduced, pivots = reduce_rows(compute_residues(self._generator.T, prime), prime)
            rest = np.setdiff1d(np.arange(n), pivots)
            self._forms[prime] = (
                _Form(prime, np.array(pivots, np.intp), rest, reduced[:, rest].T)
                if len(pivots) == k
                else None
            )
        return self._forms[prime]
