"""Low-weight codes against dense ones on sparse matrices; part `sparse` of benchmarks.coding.

A^T x and A^T B: time of a worker, bytes it holds, encoding, decoding, condition number. A worker's
time is always that of its fastest form: CSR or BLAS, both measured for every matrix, and for A^T B
also CSR times a written-out B. Encoding likewise is the faster of CSR additions and BLAS. All that
is compared is measured in one run, in turn, in a process whose BLAS has one thread. Times are the
least of some repetitions; of decoding, medians over sets of stragglers.
"""

from __future__ import annotations

import numpy as np

from benchmarks.coding.compared_codes import (
    Row,
    describe_certificate,
    get_certificate,
    make_product_codes,
    make_vector_codes,
)
from benchmarks.coding.matrix_product import Product, measure_product
from benchmarks.coding.matrix_vector import measure_vector
from benchmarks.coding.sparse_timing import measure_blas_cores, round_report, running_single_thread
from benchmarks.harness.report import Progress
from ddnn.coding import compute_lower_bound

VECTOR_CODES = ((12, 2), (24, 4), (30, 2))
DENSITIES = (0.10, 0.05, 0.02, 0.01)
PRODUCT_DENSITIES = (0.05, 0.02, 0.01)
CONDITION_VECTOR = ((12, 2), (12, 3), (18, 3), (24, 4), (30, 2))
CONDITION_PRODUCT: tuple[Product, ...] = ((3, 3, 2), (4, 4, 2), (4, 5, 4))
AIM_DENSITY = 0.05


def measure_conditions(parameters: tuple[int, ...], seed: int) -> list[Row]:
    """The worst of all straggler sets, for (n, s), or (k_a, k_b, s) of a product."""
    if len(parameters) == 2:
        n, s = parameters
        codes = make_vector_codes(n, s, seed)
        case: Row = {"n": n, "s": s, "bound": compute_lower_bound(n, s)}
        dense_names: tuple[str, ...] = ("dense_gaussian", "mds")
    else:
        k_a, k_b, s = parameters
        codes = make_product_codes(k_a, k_b, s, seed)
        n = k_a * k_b + s
        case = {"n": n, "s": s, "k_a": k_a, "k_b": k_b, "bound": compute_lower_bound(n, s)}
        dense_names = ("dense_product", "mds")
    best = min(
        get_certificate(codes[name]).worst_condition for name in (*dense_names, "polynomial")
    )
    return [
        {
            **case,
            "code": name,
            **describe_certificate(code),
            "over_best_dense": get_certificate(code).worst_condition / best,
        }
        for name, code in codes.items()
        if name not in ("uncoded", "replication")
    ]


def measure_sparse(seed: int, progress: Progress, quick: bool = False) -> Row:
    """The report of this part. progress: share done, text"""
    shape = (1500, 2000) if quick else (15_000, 20_000)
    size = (400, 400, 400) if quick else (4000, 4000, 4000)
    vector_cases = VECTOR_CODES[:1] if quick else VECTOR_CODES
    densities = DENSITIES[-2:] if quick else DENSITIES
    product_densities = PRODUCT_DENSITIES[-1:] if quick else PRODUCT_DENSITIES
    repetitions = 2 if quick else 3
    conditions = (*CONDITION_VECTOR, *CONDITION_PRODUCT)
    conditions = conditions[4:6] if quick else conditions
    vector: list[tuple[list[Row], Row]] = []
    product: list[tuple[list[Row], Row]] = []
    total = len(vector_cases) * len(densities) + 2 * len(product_densities) + 1
    with running_single_thread() as run:
        cores = run(measure_blas_cores, 500 if quick else 3000)
        table = [
            row for parameters in conditions for row in run(measure_conditions, parameters, seed)
        ]
        for n, s in vector_cases:
            for density in densities:
                progress((1 + len(vector)) / total, f"A^T x, n = {n}, density {density:.0%}")
                vector.append(run(measure_vector, n, s, density, shape, repetitions, seed))
        for density in product_densities:
            for dtype in (np.float32, np.float64):
                done = 1 + len(vector) + len(product)
                progress(done / total, f"A^T B, density {density:.0%}, {dtype.__name__}")
                product.append(run(measure_product, density, size, dtype, repetitions, seed))
    ratios, of_product = [ratio for _, ratio in vector], [ratio for _, ratio in product]
    aims = [
        judge_ratio(1.5, "A^T x", "slowest_worker", ratios),
        judge_ratio(1.5, "A^T B", "slowest_worker", of_product),
        judge_ratio(5, "A^T x", "encoding_full_codes", ratios),
        judge_ratio(5, "A^T x", "encoding_full_codes_both_csr", ratios),
        judge_condition(table),
    ]
    report = {
        "seed": seed,
        "blas_threads": 1,
        "cores_used_by_blas": cores,
        "vector_size": {"t": shape[1], "r": shape[0], "dtype": "float32"},
        "product_size": dict(zip("trw", size, strict=True)),
        "repetitions": repetitions,
        "aims": aims,
        "judged": not quick,  # small sizes say nothing
        "holds": quick or all(aim["holds"] for aim in aims),
        "vector_ratios": ratios,
        "product_ratios": of_product,
        "conditions": table,
        "vector": [row for rows, _ in vector for row in rows],
        "product": [row for rows, _ in product for row in rows],
    }
    return round_report(report)


def judge_ratio(aim: float, of: str, key: str, ratios: list[Row]) -> Row:
    """Whether the ratio reaches the aim in every case at 95 % zeros or more."""
    values = [ratio[key] for ratio in ratios if ratio["density"] <= AIM_DENSITY]
    return {
        "of": of,
        "ratio": key,
        "aim_at_least": aim,
        "least": min(values),
        "most": max(values),
        "cases": len(values),
        "reached": sum(value >= aim for value in values),
        "holds": min(values) >= aim,
    }


def judge_condition(table: list[Row]) -> Row:
    """At n = 30, s = 2 within a factor of ten of the best dense code."""
    values = [
        row["over_best_dense"]
        for row in table
        if (row["n"], row["s"], row["code"]) == (30, 2, "low_weight")
    ]
    return {
        "ratio": "over_best_dense",
        "aim_at_most": 10,
        "most": max(values),
        "holds": max(values) <= 10,
    }
