"""Exact rank of real generators, over a prime field.

Every float is a dyadic rational, so a generator maps exactly into GF(p): numerators times inverse
powers of two. A minor that is not zero mod p is not zero over the rationals: "decodable" is
proven. One that is zero mod p is tried with a second prime before it is called failing (a
non-zero minor vanishes mod both with a probability of about 2^-62).

All sets of workers share one elimination (derived here): with a basis C of k of the n rows, the
generator is [I; P] C up to the order of the rows, and a set that lacks the basis rows M and has
the further rows E decodes exactly where P[E, M] has rank |M|, at most n - k columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRIMES = (2**31 - 1, 2**31 - 19)  # below 2^31.5: sums of two products fit into uint64

Residues = NDArray[np.uint64]


def residues(values: NDArray[np.float64], prime: int) -> Residues:
    """The floats as elements of GF(prime), exactly."""
    fraction, exponent = np.frexp(values)
    numerator = np.ldexp(fraction, 53).astype(np.int64)
    exponents, where = np.unique(exponent, return_inverse=True)
    powers = np.array([pow(2, int(e) - 53, prime) for e in exponents], np.uint64)
    positive = (numerator % prime).astype(np.uint64)
    result: Residues = positive * powers[where].reshape(values.shape) % np.uint64(prime)
    return result


def row_reduced(matrix: Residues, prime: int) -> tuple[Residues, tuple[int, ...]]:
    """The reduced row echelon form and its pivot columns; zeros are skipped."""
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


def full_column_rank(matrices: Residues, prime: int) -> NDArray[np.bool_]:
    """Which of the matrices [batch, rows, columns] have independent columns."""
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
        # Without an inverse: both terms are multiplied, which keeps the rank.
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

    def decodable(self, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        lost, spare = ~alive[:, self.basis], alive[:, self.rest]
        counts = lost.sum(axis=1)
        result: NDArray[np.bool_] = counts == 0
        for count in np.unique(counts[(counts > 0) & (counts <= spare.sum(axis=1))]):
            sets = np.flatnonzero(counts == count)
            columns = np.nonzero(lost[sets])[1].reshape(-1, count)
            minors = self.table.T[columns].transpose(0, 2, 1) * spare[sets][:, :, None]
            result[sets] = full_column_rank(minors.astype(np.uint64), self.prime)
        return result


class ExactRank:
    """Decides for sets of rows of one generator whether they have rank k, exactly."""

    def __init__(self, generator: NDArray[np.float64]) -> None:
        self._generator = generator
        self._forms: dict[int, _Form | None] = {}

    def decodable(self, alive: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """alive: bool [batch, n], the rows there. Returns bool [batch]."""
        result = np.zeros(len(alive), bool)
        for prime in PRIMES:
            undecided = np.flatnonzero(~result)
            if undecided.size and (form := self._form(prime)):
                result[undecided] = form.decodable(alive[undecided])
        return result

    def _form(self, prime: int) -> _Form | None:
        """None where all n rows together lack rank."""
        if prime not in self._forms:
            n, k = self._generator.shape
            reduced, pivots = row_reduced(residues(self._generator.T, prime), prime)
            rest = np.setdiff1d(np.arange(n), pivots)
            self._forms[prime] = (
                _Form(prime, np.array(pivots, np.intp), rest, reduced[:, rest].T)
                if len(pivots) == k
                else None
            )
        return self._forms[prime]
