"""Sets of stragglers: all of them, or a sample that looks for trouble."""

from __future__ import annotations

from itertools import chain, combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Patterns = NDArray[np.intp]  # [sets, s], ascending in each row


def exhaustive(n: int, s: int) -> Patterns:
    """Every set of s of the n workers."""
    flat = chain.from_iterable(combinations(range(n), s))
    return np.fromiter(flat, np.intp, comb(n, s) * s).reshape(comb(n, s), s)


def sampled(holds: NDArray[np.bool_], s: int, samples: int, rng: np.random.Generator) -> Patterns:
    """`samples` random sets, and up to as many adversarial ones; without doubles.

    holds: bool [n, k], which worker combines which unknown. An adversarial set takes all holders
    of an unknown but one (all where there are no more than s), as many as s allows, and others to
    make up s; the unknowns with the fewest holders first.
    """
    n, _ = holds.shape
    found = {tuple(sorted(rng.choice(n, s, replace=False).tolist())) for _ in range(samples)}
    counts = holds.sum(axis=0)
    unknowns, spared = np.nonzero(holds.T & (counts > s)[:, None])
    helpless = np.flatnonzero(counts <= s)
    unknowns = np.concatenate([helpless, unknowns])
    spared = np.concatenate([np.full(len(helpless), -1), spared])
    order = np.lexsort((rng.random(len(unknowns)), counts[unknowns]))
    for unknown, worker in zip(unknowns[order[:samples]], spared[order[:samples]], strict=True):
        shuffled = rng.permutation(n)
        last = shuffled == worker  # gone only if s leaves no other choice
        ranked = shuffled[np.lexsort((~holds[shuffled, unknown], last))]
        found.add(tuple(sorted(ranked[:s].tolist())))
    return np.array(sorted(found), np.intp).reshape(len(found), s)


def survivors(n: int, gone: Patterns) -> NDArray[np.bool_]:
    """bool [sets, n]: who is left."""
    alive = np.ones((len(gone), n), bool)
    alive[np.arange(len(gone))[:, None], gone] = False
    return alive
