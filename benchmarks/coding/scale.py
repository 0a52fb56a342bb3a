"""Codes for 10 to 1,000 workers; part `scale` of benchmarks.coding.

Cost, certificate and decoding of the codes, and the wait for the k-th of n workers, simulated.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.coding.compared_codes import Row, draw_survivors, measure_decoding, split_rows
from benchmarks.coding.sparse_timing import (
    draw_sparse,
    relative_error,
    round_report,
    running_single_thread,
    time_call,
)
from benchmarks.harness.report import Progress
from ddnn.coding import Code, certify, make_low_weight, make_mds
from ddnn.core.blocks import join
from ddnn.errors import NotDecodableError

SCALE_WORKERS, SCALE_LOSSES = (10, 30, 100, 300, 1000), (2, 4, 10)
SCALE_DENSITY = 0.02
SCALE_TRIALS = 100


def measure_codes(n: int, s: int, shape: tuple[int, int], samples: int, seed: int) -> list[Row]:
    """mds and low_weight for one layer A^T [r, t], density SCALE_DENSITY, cut for n workers.

    In float64; `float32` has the errors where answers travel as float32.
    """
    r, t = shape
    rng = np.random.default_rng([seed, n, s])
    matrix = draw_sparse(r, t, SCALE_DENSITY, np.float64, rng)
    x = rng.standard_normal(t)
    direct = matrix @ x
    rows = []
    for name, make in (("mds", make_mds), ("low_weight", make_low_weight)):
        made_s, code = time_call(partial(make, n, s, seed, SCALE_TRIALS))
        certified_s, found = time_call(partial(certify, code, samples=samples, seed=seed))
        blocks = split_rows(matrix, code.k)
        encoded_s, held = time_call(partial(code.encode, blocks))
        answers = {worker: one @ x for worker, one in enumerate(held)}
        nonzeros = np.array([one.nnz for one in held])
        uncoded = matrix.nnz / code.k
        rows.append(
            {
                "n": n,
                "s": s,
                "k": code.k,
                "code": name,
                "hardware": n / code.k,
                "hardware_replication": s + 1,
                "weights": code.weights,
                "mean_weight": float((code.generator != 0).sum() / n),
                "most_nonzeros_over_uncoded": nonzeros.max() / uncoded,
                "mean_nonzeros_over_uncoded": nonzeros.mean() / uncoded,
                "make_s": made_s,
                "certify_s": certified_s,
                "sets": found.checked,
                "exhaustive": found.exhaustive,
                "failing": found.failing,
                "worst_condition": found.worst_condition,
                "encode_s": encoded_s,
                **measure_decoding(code, answers, seed),
                "float64": measure_losses(code, answers, direct, seed + 1),
                "float32": measure_losses(code, to_float32(answers), direct, seed + 1),
            }
        )
    return rows


def to_float32(answers: dict[int, NDArray[Any]]) -> dict[int, NDArray[Any]]:
    return {worker: answer.astype(np.float32) for worker, answer in answers.items()}


def measure_losses(
    code: Code, answers: dict[int, Any], direct: Any, seed: int, sets: int = 20
) -> Row:
    """The largest error over random sets of stragglers, and how many of them decoding refuses
    because no digit would be right."""
    errors = []
    for alive in draw_survivors(code, sets, seed):
        try:
            z = code.decode({worker: answers[worker] for worker in alive})
            errors.append(relative_error(join(z, len(direct)), direct))
        except NotDecodableError:
            continue
    return {
        "sets": sets,
        "refused": sets - len(errors),
        "largest_relative_error": max(errors, default=None),
    }


def simulate_waiting(n: int, s: int, runs: int, seed: int) -> Row:
    """Workers that take an exponential time of mean 1: the k-th of n, against all k, and all n."""
    rng = np.random.default_rng([seed, n, s])
    k = n - s
    times = rng.exponential(size=(runs, n))
    first_k = np.partition(times, k - 1, axis=1)[:, k - 1]
    every_k = times[:, :k].max(axis=1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])
    expected, expected_all = harmonic[n] - harmonic[s], harmonic[k]
    return {
        "n": n,
        "s": s,
        "runs": runs,
        "coded_mean": first_k.mean(),
        "coded_mean_expected": expected,
        "coded_p99": np.quantile(first_k, 0.99),
        "uncoded_mean": every_k.mean(),
        "uncoded_mean_expected": expected_all,
        "uncoded_p99": np.quantile(every_k, 0.99),
        "uncoded_over_coded_mean": every_k.mean() / first_k.mean(),
        "uncoded_over_coded_mean_expected": expected_all / expected,
        "uncoded_over_coded_p99": np.quantile(every_k, 0.99) / np.quantile(first_k, 0.99),
        "standard_error": first_k.std() / runs**0.5,
    }


def measure_scale(seed: int, progress: Progress, quick: bool = False) -> Row:
    """The report of this part. progress: share done, text"""
    workers = SCALE_WORKERS[:2] if quick else SCALE_WORKERS
    shape = (1000, 1000) if quick else (16_000, 4000)
    samples, runs = (50, 500) if quick else (500, 5000)
    cases = [(n, s) for n in workers for s in SCALE_LOSSES if s < n]
    rows: list[Row] = []
    with running_single_thread() as run:
        for number, (n, s) in enumerate(cases):
            progress(number / len(cases), f"{n} workers, any {s} may vanish")
            rows += run(measure_codes, n, s, shape, samples, seed)
    report = {
        "seed": seed,
        "blas_threads": 1,
        "size": {"t": shape[1], "r": shape[0], "density": SCALE_DENSITY, "dtype": "float64"},
        "trials": SCALE_TRIALS,
        "codes": rows,
        "waiting": [simulate_waiting(n, s, runs, seed) for n, s in cases],
    }
    return round_report(report)
