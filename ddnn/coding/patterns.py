"""Sets of stragglers: all of them, or a sample of random and of adversarial ones."""

from __future__ import annotations

from itertools import chain, combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Patterns = NDArray[np.intp]  # [sets, s], ascending in each row


def list_patterns(n: int, s: int) -> Patterns:
    """Every set of s of the n workers."""
    flat = chain.from_iterable(combinations(range(n), s))
    return np.fromiter(flat, np.intp, comb(n, s) * s).reshape(comb(n, s), s)


def sample_patterns(
    combines: NDArray[np.bool_], s: int, samples: int, rng: np.random.Generator
) -> Patterns:
    """`samples` random sets, and up to as many adversarial ones; without duplicates.

    combines: bool [n, k], whether a worker combines an unknown. An adversarial set contains all
    workers of an unknown except one (all of them where there are no more than s), as many as s
    allows, filled up to s with other workers; the unknowns with the fewest workers first.
    """
    n, _ = combines.shape
    found = {tuple(sorted(rng.choice(n, s, replace=False).tolist())) for _ in range(samples)}
    counts = combines.sum(axis=0)
    unknowns, spared = np.nonzero(combines.T & (counts > s)[:, None])
    unprotected = np.flatnonzero(counts <= s)
    unknowns = np.concatenate([unprotected, unknowns])
    spared = np.concatenate([np.full(len(unprotected), -1), spared])
    order = np.lexsort((rng.random(len(unknowns)), counts[unknowns]))
    for unknown, worker in zip(unknowns[order[:samples]], spared[order[:samples]], strict=True):
        shuffled = rng.permutation(n)
        is_spared = shuffled == worker  # ranks last: included only if s leaves no other choice
        ranked = shuffled[np.lexsort((~combines[shuffled, unknown], is_spared))]
        found.add(tuple(sorted(ranked[:s].tolist())))
    return np.array(sorted(found), np.intp).reshape(len(found), s)


def mark_survivors(n: int, stragglers: Patterns) -> NDArray[np.bool_]:
    """The workers that remain without each set of stragglers: bool [sets, n]."""
    present = np.ones((len(stragglers), n), bool)
    present[np.arange(len(stragglers))[:, None], stragglers] = False
    return present
