"""Certification of a code: which sets of s stragglers it tolerates, and how well conditioned."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, inf

import numpy as np
from numpy.typing import NDArray

from ddnn.coding import patterns
from ddnn.coding.code import Code
from ddnn.coding.conditioning import DENSE_LIMIT, compute_conditions, find_uncoded_blocks
from ddnn.errors import ConfigError

EXHAUSTIVE_LIMIT = 20_000  # straggler sets; where there are more, a sample is tried
SAMPLES = 2_000
MAX_MIXED_WORKERS = 32  # workers with several blocks; with more, large codes are slow to certify


@dataclass(frozen=True)
class Certificate:
    """The result of certifying a code."""

    decodable: bool  # from every set tried with s workers absent; exact rank
    worst_condition: float  # inf where a set fails, or is singular in floating point
    worst_set: tuple[int, ...]  # the stragglers of the worst condition, or the first that fail
    exhaustive: bool  # all sets were tried
    checked: int
    failing: int
    seed: int | None  # of the sample
    conditions_checked: int  # of the sets `checked`, those whose condition was computed


def certify(
    code: Code,
    exhaustive_limit: int = EXHAUSTIVE_LIMIT,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Certificate:
    """Try every set of s stragglers, or `samples` random and as many adversarial ones.

    Whether a set decodes is decided by exact rank. `Code.decode` also refuses a set whose condition
    number leaves no correct digit: 8e6 and more for float32, 4e15 for float64.

    Condition numbers are of the 2-norm; for codes that are not systematic (more than 128 workers
    combine blocks) beyond 128 blocks an estimate of the 1-norm. Beyond 128 blocks, where more than
    32 workers combine blocks, conditions are slow: `samples` / 4 of the sets are measured, evenly
    spread; `Certificate.conditions_checked` is their number.
    """
    sets, failing = find_failing_sets(code, exhaustive_limit, samples, seed)
    exhaustive = comb(code.n, code.s) <= exhaustive_limit
    if failing.size:
        worst, worst_at, measured = inf, int(failing[0]), 0
    else:
        selected = _select_for_condition(code, len(sets), samples)
        values = np.concatenate(list(compute_conditions(code.generator, sets[selected])))
        worst, worst_at = float(values.max()), int(selected[values.argmax()])
        measured = len(selected)
    return Certificate(
        decodable=not failing.size,
        worst_condition=worst,
        worst_set=tuple(sets[worst_at].tolist()),
        exhaustive=exhaustive,
        checked=len(sets),
        failing=len(failing),
        seed=None if exhaustive else seed,
        conditions_checked=measured,
    )


def find_failing_sets(
    code: Code,
    exhaustive_limit: int = EXHAUSTIVE_LIMIT,
    samples: int = SAMPLES,
    seed: int = 0,
) -> tuple[patterns.Patterns, NDArray[np.intp]]:
    """The straggler sets tried, [sets, s], and the indices of those that fail, by exact rank."""
    if comb(code.n, code.s) <= exhaustive_limit:
        sets = patterns.list_patterns(code.n, code.s)
    else:
        if samples < 1:
            raise ConfigError(f"samples={samples}: at least one is needed")
        rng = np.random.default_rng(seed)
        sets = patterns.sample_patterns(code.generator != 0, code.s, samples, rng)
    return sets, np.flatnonzero(~code.find_decodable(patterns.mark_survivors(code.n, sets)))


def _select_for_condition(code: Code, sets: int, samples: int) -> NDArray[np.intp]:
    """The indices of the sets whose condition is computed."""
    mixed_workers = (find_uncoded_blocks(code.generator) < 0).sum()
    slow = code.k > DENSE_LIMIT and mixed_workers > MAX_MIXED_WORKERS
    count = min(sets, max(1, samples // 4)) if slow else sets
    return np.linspace(0, sets - 1, count).astype(np.intp)
