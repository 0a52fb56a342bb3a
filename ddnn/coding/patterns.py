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

    holds: bool [n, k], which worker combines which unknown. An adversarial set takes all but one
    of the holders of an unknown (as many as s allows, and others to make up s).
    """
    n, k = holds.shape
    holders = [np.flatnonzero(holds[:, unknown]) for unknown in range(k)]
    spared = [(unknown, worker) for unknown in range(k) for worker in holders[unknown]]
    if len(spared) > samples:
        spared = [spared[i] for i in rng.choice(len(spared), samples, replace=False)]
    found = {tuple(sorted(rng.choice(n, s, replace=False).tolist())) for _ in range(samples)}
    for unknown, worker in spared:
        order = rng.permutation(n)
        inside = holds[order, unknown] & (order != worker)
        outside = ~holds[order, unknown]
        # The spared holder goes last: only an s beyond all others reaches it.
        ranked = np.concatenate([order[inside], order[outside], [worker]])
        found.add(tuple(sorted(ranked[:s].tolist())))
    return np.array(sorted(found), np.intp).reshape(len(found), s)


def survivors(n: int, gone: Patterns) -> NDArray[np.bool_]:
    """bool [sets, n]: who is left."""
    alive = np.ones((len(gone), n), bool)
    alive[np.arange(len(gone))[:, None], gone] = False
    return alive
