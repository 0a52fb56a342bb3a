"""A^T x on a sparse matrix: every code on the same matrix."""

from __future__ import annotations

from functools import partial
from operator import matmul
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from benchmarks.coding.compared_codes import (
    DENSE_CODES,
    FULL_CODES,
    PART,
    Row,
    describe_encoding,
    describe_workers,
    divide_best,
    make_vector_codes,
    measure_decoding,
    measure_exactness,
    split_rows,
    time_each,
    write_out,
)
from benchmarks.coding.sparse_timing import draw_sparse, least_times_s, time_call
from ddnn.coding import Code
from ddnn.coding.conditioning import find_uncoded_blocks
from ddnn.coding.encoding import encode
from ddnn.coding.section import compact, count_stored_bytes, to_dense
from ddnn.core.blocks import join


def measure_vector(
    n: int, s: int, density: float, shape: tuple[int, int], repetitions: int, seed: int
) -> tuple[list[Row], Row]:
    """All codes on one matrix A^T [r, t]: a row of figures for each, and the ratios."""
    r, t = shape
    rng = np.random.default_rng([seed, n, round(1e4 * density)])
    matrix = draw_sparse(r, t, density, np.float32, rng)
    x = rng.standard_normal(t, np.float32)
    direct = matrix.astype(np.float64) @ x.astype(np.float64)
    codes = make_vector_codes(n, s, seed)
    blocks = {name: split_rows(matrix, code.k) for name, code in codes.items()}
    taken: dict[str, list[Row]] = {name: [] for name in codes}
    answers: dict[str, dict[int, Any]] = {name: {} for name in codes}
    encode_s = dict.fromkeys(codes, 0.0)
    for worker in range(n):  # one at a time, so that memory stays small
        held: dict[str, Any] = {}
        for name, code in codes.items():
            if worker < code.n:
                row = code.generator[[worker]]
                spent_s, (held[name],) = time_call(partial(encode, row, blocks[name]))
                encode_s[name] += spent_s
                answers[name][worker] = held[name] @ x
        written = [time_call(partial(to_dense, one)) for one in held.values()]
        forms = [
            form
            for one, (_, two) in zip(held.values(), written, strict=True)
            for form in (one, two)
        ]
        spans_s = least_times_s([partial(matmul, form, x) for form in forms], repetitions)
        for number, (name, one) in enumerate(held.items()):
            csr_s, blas_s = spans_s[2 * number : 2 * number + 2]
            taken[name].append(
                {
                    "csr_s": csr_s,
                    "blas_s": blas_s,
                    "write_out_s": written[number][0],
                    "nonzeros": one.nnz,
                    "numbers": one.shape[0] * one.shape[1],
                    "bytes": count_stored_bytes(compact(one)),
                }
            )
    thin = matrix[:, : max(16, t // 20)].astype(np.float64)
    some = matrix[:, : t // PART]
    by_blas_s = time_each(
        {name: partial(encode_written_out, code, some) for name, code in codes.items()}
    )
    rows = [
        {
            "n": n,
            "s": s,
            "density": density,
            "code": name,
            **describe_workers(taken[name]),
            **measure_encoding(code, encode_s[name], PART * by_blas_s[name], taken[name], some),
            **measure_decoding(code, answers[name], seed),
            "float32": measure_exactness(code, answers[name], direct, lambda z: join(z, r)),
            "float64": measure_in_float64(code, thin, x),
        }
        for name, code in codes.items()
    ]
    return rows, compare_vector_codes(rows)


def encode_written_out(code: Code, matrix: Any) -> list[Any]:
    """Write the blocks of rows out and encode them."""
    return code.encode(write_out(split_rows(matrix, code.k)))


def measure_encoding(code: Code, csr_s: float, blas_s: float, taken: list[Row], some: Any) -> Row:
    """`encode_s`: the faster way to each worker's fastest form, conversion included."""
    blocks = write_out(split_rows(some, code.k))
    bare = find_uncoded_blocks(code.generator) >= 0
    to_csr_s = to_blas_s = 0.0
    for worker, held in enumerate(code.encode(blocks)):
        if taken[worker]["csr_s"] > taken[worker]["blas_s"]:
            to_blas_s += taken[worker]["write_out_s"]
        elif not bare[worker]:  # a bare block is there as CSR
            to_csr_s += PART * time_call(partial(csr_array, held))[0]
    found = describe_encoding(csr_s, blas_s)
    return {**found, "encode_s": min(csr_s + to_blas_s, blas_s + to_csr_s)}


def measure_in_float64(code: Code, thin: Any, x: NDArray[Any]) -> Row:
    """Encoding, product and decoding in float64, on some of the inputs."""
    some = x[: thin.shape[1]].astype(np.float64)
    answers = {i: held @ some for i, held in enumerate(code.encode(split_rows(thin, code.k)))}
    return measure_exactness(code, answers, thin @ some, lambda z: join(z, thin.shape[0]))


def compare_vector_codes(rows: list[Row]) -> Row:
    """Ratios of the best dense code to the low-weight code: above 1, the latter needs less. A dense
    code counts whether or not it can be decoded in float32."""
    by = {row["code"]: row for row in rows}
    low, mds, dense_row = by["low_weight"], by["mds"], by["dense_gaussian"]
    every = [by[name] for name in DENSE_CODES]
    full = [by[name] for name in FULL_CODES]
    return {
        "n": low["n"],
        "s": low["s"],
        "density": low["density"],
        "slowest_worker": divide_best(every, low, "slowest_ms"),
        "slowest_worker_both_csr": divide_best(every, low, "slowest_csr_ms"),
        "mean_worker_full_codes": divide_best(full, low, "mean_ms"),
        "mean_worker_mds": divide_best([mds], low, "mean_ms"),
        "most_bytes": divide_best(every, low, "most_bytes"),
        "encoding_full_codes": divide_best(full, low, "encode_s"),
        "encoding_full_codes_both_csr": divide_best(full, low, "encode_csr_s"),
        "encoding_mds": divide_best([mds], low, "encode_s"),
        "slowest_worker_uncoded": divide_best([by["uncoded"]], low, "slowest_ms"),
        "slowest_worker_replication": divide_best([by["replication"]], low, "slowest_ms"),
        # A worker's matrix that is filled less than this is faster as CSR, on this machine.
        "csr_pays_below": low["slowest_blas_ms"] / low["slowest_csr_ms"] * low["filled"],
        "low_weight_filled": low["filled"],
        "dense_filled": dense_row["filled"],
    }
