"""A^T B of sparse matrices: every code on the same pair."""

from __future__ import annotations

from functools import partial
from operator import matmul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.coding.compared_codes import (
    FORMS,
    PART,
    Row,
    describe_encoding,
    describe_workers,
    divide_best,
    make_product_codes,
    measure_decoding,
    measure_exactness,
    split_columns,
    split_rows,
    time_each,
    write_out,
)
from benchmarks.coding.sparse_timing import draw_sparse, least_times_s, time_call
from ddnn.coding import Code
from ddnn.coding.section import compact, count_stored_bytes, to_dense
from ddnn.core.blocks import join

Product = tuple[int, int, int]  # k_a, k_b, s
PRODUCT: Product = (4, 5, 4)
HEAVIEST = 3


def measure_product(
    density: float, size: tuple[int, int, int], dtype: type, repetitions: int, seed: int
) -> tuple[list[Row], Row]:
    """All codes on A [t, r] and B [t, w]: a row of figures for each, and the ratios.

    The HEAVIEST workers with the most multiplications are measured: the slowest is among them.
    """
    t, r, w = size
    k_a, k_b, s = PRODUCT
    rng = np.random.default_rng([seed, round(1e4 * density)])
    a = draw_sparse(r, t, density, dtype, rng)  # A^T: its rows are the columns of A
    b = draw_sparse(t, w, density, dtype, rng)
    direct = (a.astype(np.float64) @ b.astype(np.float64)).toarray()
    codes = make_product_codes(k_a, k_b, s, seed)
    blocks_a, blocks_b = split_rows(a, k_a), split_columns(b, k_b)
    encode_s, held = {}, {}
    for name, code in codes.items():
        encode_s[name], held[name] = time_call(partial(code.encode, blocks_a, blocks_b))
    some_a, some_b = a[:, : t // PART], b[: t // PART]
    by_blas_s = time_each(
        {name: partial(encode_written_out, code, some_a, some_b) for name, code in codes.items()}
    )
    taken = dict(
        zip(codes, measure_heaviest([held[name] for name in codes], repetitions), strict=True)
    )
    rows = []
    for name, code in codes.items():
        answers = {
            worker: to_dense(one) @ to_dense(other)
            for worker, (one, other) in enumerate(held[name])
        }
        rows.append(
            {
                "density": density,
                "dtype": np.dtype(dtype).name,
                "code": name,
                "weights": code.weights,
                **{
                    key: value
                    for key, value in describe_workers(taken[name]).items()
                    if key != "mean_ms"
                },
                **describe_encoding(encode_s[name], PART * by_blas_s[name]),
                **measure_decoding(code, answers, seed, sets=2, repetitions=2),
                "exactness": measure_exactness(
                    code, answers, direct, lambda z: join_product(z, a, b)
                ),
            }
        )
    return rows, compare_product_codes(rows)


def encode_written_out(code: Code, a: Any, b: Any) -> list[Any]:
    """Write the blocks of A^T and of B out and encode them."""
    k_a, k_b, _ = PRODUCT
    return code.encode(write_out(split_rows(a, k_a)), write_out(split_columns(b, k_b)))


def count_multiplications(one: Any, other: Any) -> int:
    """Multiplications of nonzeros in a sparse product."""
    columns = np.bincount(one.indices, minlength=one.shape[1])
    return int(columns @ np.diff(other.indptr))


def measure_heaviest(held: list[list[tuple[Any, Any]]], repetitions: int) -> list[list[Row]]:
    """Times of the workers with the most multiplications of every code, measured in turn."""
    heaviest = [
        sorted(pairs, key=lambda pair: -count_multiplications(*pair))[:HEAVIEST] for pairs in held
    ]
    taken: list[list[Row]] = [[] for _ in held]
    for turn in range(HEAVIEST):
        pairs = [of_code[turn] for of_code in heaviest]
        calls = []
        for one, other in pairs:
            left, right = to_dense(one), to_dense(other)
            calls += [
                partial(matmul, *pair) for pair in ((one, other), (one, right), (left, right))
            ]
        spans_s = least_times_s(calls, repetitions, 1)
        for number, (one, other) in enumerate(pairs):
            of_forms = spans_s[len(FORMS) * number :]
            taken[number].append(
                {
                    **{f"{form}_s": s for form, s in zip(FORMS, of_forms, strict=False)},
                    "nonzeros": one.nnz + other.nnz,
                    "numbers": one.shape[0] * one.shape[1] + other.shape[0] * other.shape[1],
                    "bytes": count_stored_bytes(compact(one)) + count_stored_bytes(compact(other)),
                }
            )
    return taken


def join_product(blocks: list[NDArray[Any]], a: Any, b: Any) -> NDArray[Any]:
    """Blocks p * k_b + q, each padded, as A^T B."""
    k_a, k_b, _ = PRODUCT
    bands = [join(blocks[p * k_b : (p + 1) * k_b], b.shape[1]).T for p in range(k_a)]
    return join(bands, a.shape[0]).T


def compare_product_codes(rows: list[Row]) -> Row:
    """See `compare_vector_codes`."""
    by = {row["code"]: row for row in rows}
    low, full = by["low_weight_product"], [by["polynomial"], by["dense_product"]]
    every = [*full, by["mds"]]
    return {
        "density": low["density"],
        "dtype": low["dtype"],
        "slowest_worker": divide_best(every, low, "slowest_ms"),
        "slowest_worker_both_csr": divide_best(every, low, "slowest_csr_ms"),
        "most_bytes": divide_best(every, low, "most_bytes"),
        "encoding_full_codes": divide_best(full, low, "encode_s"),
        "encoding_full_codes_both_csr": divide_best(full, low, "encode_csr_s"),
        "encoding_mds": divide_best([by["mds"]], low, "encode_s"),
        "slowest_worker_uncoded": divide_best([by["uncoded"]], low, "slowest_ms"),
    }
