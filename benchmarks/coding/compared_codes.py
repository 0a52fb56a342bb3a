"""The codes that are compared, and figures of any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.coding.sparse_timing import TINY, least_times_s, relative_error, time_call
from ddnn.coding import (
    Certificate,
    Code,
    certify,
    make_dense_gaussian,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    make_polynomial,
    make_replication,
    make_uncoded,
    search_product_code,
)
from ddnn.coding.section import to_dense
from ddnn.core.blocks import slices
from ddnn.errors import NotDecodableError

Row = dict[str, Any]
FULL_CODES = ("polynomial", "dense_gaussian")  # every worker combines all blocks
DENSE_CODES = (*FULL_CODES, "mds")  # of mds only the parities do
FORMS = ("csr", "mixed", "blas")
PART = 10  # share of the inputs by which encoding with BLAS is measured


@lru_cache
def make_vector_codes(n: int, s: int, seed: int) -> dict[str, Code]:
    return {
        "low_weight": make_low_weight(n, s, seed),
        "uncoded": make_uncoded(n - s),
        "replication": make_replication(n, s),
        "polynomial": make_polynomial(n, s),
        "dense_gaussian": make_dense_gaussian(n, s, seed),
        "mds": make_mds(n, s, seed),
    }


@lru_cache
def make_product_codes(k_a: int, k_b: int, s: int, seed: int) -> dict[str, Code]:
    """low_weight_product, and for comparison products of dense and of bare blocks."""
    k = k_a * k_b
    n = k + s
    all_a, all_b = tuple(range(k_a)), tuple(range(k_b))
    bare_a, bare_b = [(i // k_b,) for i in range(k)], [(i % k_b,) for i in range(k)]
    nodes = -1 + 2 * np.arange(1, n + 1) / n
    powers_a = np.vander(nodes**k_b, k_a, increasing=True)
    powers_b = np.vander(nodes, k_b, increasing=True)
    polynomial = np.einsum("ip,iq->ipq", powers_a, powers_b).reshape(n, k)

    def make(a: Sequence[tuple[int, ...]], b: Sequence[tuple[int, ...]], lost: int) -> Code:
        return search_product_code(a, b, k_a, k_b, lost, seed)

    return {
        "low_weight_product": make_low_weight_product(k_a, k_b, s, seed),
        "uncoded": make(bare_a, bare_b, 0),
        "polynomial": Code(polynomial, s, "polynomial", (powers_a, powers_b)),
        "dense_product": make([all_a] * n, [all_b] * n, s),
        "mds": make(bare_a + [all_a] * s, bare_b + [all_b] * s, s),
    }


CERTIFICATES: dict[int, tuple[Code, Certificate]] = {}


def get_certificate(code: Code) -> Certificate:
    """The certificate of a code of one of the tables above, computed once."""
    if id(code) not in CERTIFICATES:
        CERTIFICATES[id(code)] = code, certify(code)
    return CERTIFICATES[id(code)][1]


def describe_certificate(code: Code) -> Row:
    found = get_certificate(code)
    return {
        "weights": code.weights,
        "sets": found.checked,
        "exhaustive": found.exhaustive,
        "failing": found.failing,
        "worst_condition": found.worst_condition,
        "worst_set": found.worst_set,
    }


def measure_exactness(
    code: Code, answers: dict[int, Any], direct: Any, join_blocks: Callable[..., Any]
) -> Row:
    """The result without the worst set of stragglers, against direct computation in float64."""
    found = get_certificate(code)
    alive = {worker: answers[worker] for worker in answers if worker not in found.worst_set}
    try:
        error = relative_error(join_blocks(code.decode(alive)), direct)
    except NotDecodableError:
        return {"relative_error": None, "refused": True}
    precision = float(np.finfo(next(iter(alive.values())).dtype).eps)
    bound = found.worst_condition * precision
    return {"relative_error": error, "error_over_condition_eps": error / bound, "refused": False}


def draw_survivors(code: Code, count: int, seed: int) -> list[list[int]]:
    """`count` random sets of the workers that remain without s stragglers."""
    rng = np.random.default_rng(seed)
    left = code.n - code.s
    return [sorted(rng.choice(code.n, left, replace=False).tolist()) for _ in range(count)]


def measure_decoding(
    code: Code, answers: dict[int, Any], seed: int, sets: int = 9, repetitions: int = 20
) -> Row:
    """Time of decoding without s random workers, the first time and again; medians over sets."""
    fresh = Code(code.generator, code.s, code.name)  # its caches are empty
    first, again = [], []
    try:
        for alive in draw_survivors(code, sets + 1, seed):
            given = {worker: answers[worker] for worker in alive}
            decode = partial(fresh.decode, given)
            first.append(time_call(decode)[0])
            again.append(least_times_s([decode], repetitions, 1)[0])
    except NotDecodableError:
        return {"decode_first_ms": None, "decode_again_ms": None}
    # Without the very first, which also makes the code's table for exact ranks.
    return {
        "decode_first_ms": 1e3 * float(np.median(first[1:])),
        "decode_again_ms": 1e3 * float(np.median(again)),
    }


def split_rows(matrix: Any, k: int) -> list[Any]:
    return [matrix[where] for where in slices(matrix.shape[0], k)]


def split_columns(matrix: Any, k: int) -> list[Any]:
    return [matrix[:, where] for where in slices(matrix.shape[1], k)]


def write_out(blocks: list[Any]) -> list[NDArray[Any]]:
    """Sparse blocks as dense arrays."""
    return [to_dense(block) for block in blocks]


def time_each(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The least seconds of each call, by name."""
    return dict(zip(calls, least_times_s(list(calls.values()), 2, 1), strict=True))


def describe_encoding(csr_s: float, blas_s: float) -> Row:
    """Seconds of encoding in each form and in the faster one.

    blas_s: of written-out blocks, writing out included, measured on 1 / PART of the inputs, because
    all of them may exceed the memory; the work is the same for each input
    """
    return {"encode_csr_s": csr_s, "encode_blas_s": blas_s, "encode_s": min(csr_s, blas_s)}


def describe_workers(taken: list[Row]) -> Row:
    """The slowest worker and the means of all. taken: seconds by form and sizes, by worker"""
    forms = [form for form in FORMS if f"{form}_s" in taken[0]]
    best = [min(one[f"{form}_s"] for form in forms) for one in taken]
    slowest = taken[int(np.argmax(best))]
    return {
        "slowest_ms": 1e3 * max(best),
        "mean_ms": 1e3 * float(np.mean(best)),
        "slowest_form": min(forms, key=lambda form: slowest[f"{form}_s"]),
        **{f"slowest_{form}_ms": 1e3 * slowest[f"{form}_s"] for form in forms},
        "most_nonzeros": max(one["nonzeros"] for one in taken),
        "filled": max(one["nonzeros"] / one["numbers"] for one in taken),
        "most_bytes": max(one["bytes"] for one in taken),
    }


def divide_best(others: list[Row], row: Row, key: str) -> float:
    """The least figure of the others over that of this row."""
    return float(min(other[key] for other in others) / max(row[key], TINY))
