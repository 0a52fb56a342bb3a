"""Low-weight codes against dense ones on sparse matrices, and how codes scale with the workers.

    python -m benchmarks.sparse_codes --json [--only sparse|scale] [--quick]

sparse  A^T x and A^T B: time of a worker, bytes it holds, encoding, decoding, condition number
scale   10 to 1,000 workers: cost, certificate, decoding, and the wait for the k-th of n

A worker's time is always that of its fastest form: CSR or BLAS, both measured for every matrix, and
for A^T B also CSR times a written-out B. Encoding likewise is the faster of CSR additions and BLAS.
All that is compared is measured in one run, in turn, in a process whose BLAS has one thread. Times
are the least of some repetitions; of decoding, medians over sets of stragglers. Exit code 1 where
an aim is missed.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from benchmarks.report import bar, ended_cleanly, header, parser, show
from ddnn.coding import Certificate, Code, lower_bound
from ddnn.coding.conditioning import unit_blocks
from ddnn.coding.encoding import encode
from ddnn.coding.section import dense, smaller, stored_bytes
from ddnn.core.blocks import join, slices
from ddnn.errors import NotDecodableError

Row = dict[str, Any]
Progress = Callable[..., None]  # progress(done, what), done from 0 to 1
Product = tuple[int, int, int]  # k_a, k_b, s

VECTOR_CODES = ((12, 2), (24, 4), (30, 2))
DENSITIES = (0.10, 0.05, 0.02, 0.01)
PRODUCT: Product = (4, 5, 4)
PRODUCT_DENSITIES = (0.05, 0.02, 0.01)
CONDITION_VECTOR = ((12, 2), (12, 3), (18, 3), (24, 4), (30, 2))
CONDITION_PRODUCT: tuple[Product, ...] = ((3, 3, 2), (4, 4, 2), (4, 5, 4))
FULL_CODES = ("polynomial", "dense_gaussian")  # every worker combines all blocks
DENSE_CODES = (*FULL_CODES, "mds")  # of mds only the parities do
SCALE_WORKERS, SCALE_LOSSES = (10, 30, 100, 300, 1000), (2, 4, 10)
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
PART = 10
FORMS = ("csr", "mixed", "blas")
WATCHED = 3
SCALE_DENSITY = 0.02
SCALE_TRIALS = 100
AIM_DENSITY = 0.05
TINY = 1e-12


# -- running: one process, one thread


@contextmanager
def one_thread() -> Iterator[Callable[..., Any]]:
    """run(function, *arguments) in a new process: BLAS reads its limit when it is loaded."""
    before = {name: os.environ.get(name) for name in THREADS}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        os.environ.update(dict.fromkeys(THREADS, "1"))
        try:
            pool.submit(int).result()  # starts it
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def blas_cores(size: int) -> float:
    """Processor seconds per second of a large product: 1 for one thread."""
    square = np.ones((size, size), np.float32)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for _ in range(3):
        square @ square
    return (time.process_time() - began_cpu_s) / (time.perf_counter() - began_s)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began_s = time.perf_counter()
    result = call()
    return time.perf_counter() - began_s, result


def least(calls: Sequence[Callable[[], Any]], repetitions: int, warm: int = 2) -> list[float]:
    """The least seconds of each call. They take turns, `warm` calls in a row each: a worker has
    its caches to itself."""
    best = [float("inf")] * len(calls)
    for _ in range(repetitions):
        for number, call in enumerate(calls):
            best[number] = min(best[number], *(timed(call)[0] for _ in range(warm)))
    return best


def short(value: Any) -> Any:
    """Floats to four digits, wherever they are."""
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [short(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value


def random_sparse(
    rows: int, columns: int, density: float, dtype: type, rng: np.random.Generator
) -> Any:
    """CSR with independent nonzeros, N(0, 1): the gaps between them are geometric."""
    size = rows * columns
    count = int(size * density + 6 * np.sqrt(size * density) + 16)
    places = np.cumsum(rng.geometric(density, count)) - 1
    places = places[places < size]
    pointers = np.searchsorted(places, np.arange(rows + 1) * columns)
    values = rng.standard_normal(len(places), np.float32).astype(dtype)
    kind = np.int32
    parts = values, (places % columns).astype(kind), pointers.astype(kind)
    return csr_array(parts, shape=(rows, columns))


def relative_error(decoded: NDArray[Any], direct: NDArray[Any]) -> float:
    wide = decoded.astype(np.float64)
    return float(np.linalg.norm(wide - direct) / max(np.linalg.norm(direct), TINY))


# -- the codes


@lru_cache
def vector_codes(n: int, s: int, seed: int) -> dict[str, Code]:
    return {
        "low_weight": Code.low_weight(n, s, seed),
        "uncoded": Code.uncoded(n - s),
        "replication": Code.replication(n, s),
        "polynomial": Code.polynomial(n, s),
        "dense_gaussian": Code.dense_gaussian(n, s, seed),
        "mds": Code.mds(n, s, seed),
    }


@lru_cache
def product_codes(k_a: int, k_b: int, s: int, seed: int) -> dict[str, Code]:
    """low_weight_product, and for comparison products of dense and of bare blocks."""
    k = k_a * k_b
    n = k + s
    all_a, all_b = tuple(range(k_a)), tuple(range(k_b))
    bare_a, bare_b = [(i // k_b,) for i in range(k)], [(i % k_b,) for i in range(k)]
    nodes = -1 + 2 * np.arange(1, n + 1) / n
    powers_a = np.vander(nodes**k_b, k_a, increasing=True)
    powers_b = np.vander(nodes, k_b, increasing=True)
    polynomial = np.einsum("ip,iq->ipq", powers_a, powers_b).reshape(n, k)

    def on(a: Sequence[tuple[int, ...]], b: Sequence[tuple[int, ...]], lost: int) -> Code:
        return Code.from_product_supports(a, b, k_a, k_b, lost, seed)

    return {
        "low_weight_product": Code.low_weight_product(k_a, k_b, s, seed),
        "uncoded": on(bare_a, bare_b, 0),
        "polynomial": Code(polynomial, s, "polynomial", (powers_a, powers_b)),
        "dense_product": on([all_a] * n, [all_b] * n, s),
        "mds": on(bare_a + [all_a] * s, bare_b + [all_b] * s, s),
    }


CERTIFICATES: dict[int, tuple[Code, Certificate]] = {}


def certified(code: Code) -> Certificate:
    """The certificate of a code that stays in one of the tables above."""
    if id(code) not in CERTIFICATES:
        CERTIFICATES[id(code)] = code, code.certify()
    return CERTIFICATES[id(code)][1]


def certificate_row(code: Code) -> Row:
    found = certified(code)
    return {
        "weights": code.weights,
        "sets": found.checked,
        "exhaustive": found.exhaustive,
        "failing": found.failing,
        "worst_condition": found.worst_condition,
        "worst_set": found.worst_set,
    }


def exactness(code: Code, answers: dict[int, Any], direct: Any, whole: Callable[..., Any]) -> Row:
    """Decoded from all but the worst set of stragglers, against direct computation in float64."""
    found = certified(code)
    alive = {worker: answers[worker] for worker in answers if worker not in found.worst_set}
    try:
        error = relative_error(whole(code.decode(alive)), direct)
    except NotDecodableError:
        return {"relative_error": None, "refused": True}
    precision = float(np.finfo(next(iter(alive.values())).dtype).eps)
    bound = found.worst_condition * precision
    return {"relative_error": error, "error_over_condition_eps": error / bound, "refused": False}


def random_losses(code: Code, count: int, seed: int) -> list[list[int]]:
    """`count` random sets of the workers that are left when s are gone."""
    rng = np.random.default_rng(seed)
    left = code.n - code.s
    return [sorted(rng.choice(code.n, left, replace=False).tolist()) for _ in range(count)]


def decode_row(
    code: Code, answers: dict[int, Any], seed: int, sets: int = 9, repetitions: int = 20
) -> Row:
    """With s random workers gone: a set met for the first time, and met again; medians of sets."""
    fresh = Code(code.generator, code.s, code.name)  # nothing in its caches
    first, again = [], []
    try:
        for alive in random_losses(code, sets + 1, seed):
            given = {worker: answers[worker] for worker in alive}
            first.append(timed(lambda given=given: fresh.decode(given))[0])
            again.append(least([lambda given=given: fresh.decode(given)], repetitions, 1)[0])
    except NotDecodableError:
        return {"decode_first_ms": None, "decode_again_ms": None}
    # The very first also makes the code's table for exact ranks.
    return {
        "decode_first_ms": 1e3 * float(np.median(first[1:])),
        "decode_again_ms": 1e3 * float(np.median(again)),
    }


# -- A^T x


def vector_case(
    n: int, s: int, density: float, shape: tuple[int, int], repetitions: int, seed: int
) -> tuple[list[Row], Row]:
    """All codes on one matrix A^T [r, t]: a row of figures for each, and the ratios."""
    r, t = shape
    rng = np.random.default_rng([seed, n, round(1e4 * density)])
    matrix = random_sparse(r, t, density, np.float32, rng)
    x = rng.standard_normal(t, np.float32)
    direct = matrix.astype(np.float64) @ x.astype(np.float64)
    codes = vector_codes(n, s, seed)
    blocks = {name: rows_of(matrix, code.k) for name, code in codes.items()}
    taken: dict[str, list[Row]] = {name: [] for name in codes}
    answers: dict[str, dict[int, Any]] = {name: {} for name in codes}
    encode_s = dict.fromkeys(codes, 0.0)
    for worker in range(n):  # one at a time, all codes in turn: memory stays small
        held: dict[str, Any] = {}
        for name, code in codes.items():
            if worker < code.n:
                row = code.generator[[worker]]
                spent_s, (held[name],) = timed(lambda row=row, of=name: encode(row, blocks[of]))
                encode_s[name] += spent_s
                answers[name][worker] = held[name] @ x
        written = [timed(lambda one=one: dense(one)) for one in held.values()]
        forms = [
            form
            for one, (_, two) in zip(held.values(), written, strict=True)
            for form in (one, two)
        ]
        spans_s = least([lambda form=form: form @ x for form in forms], repetitions)
        for number, (name, one) in enumerate(held.items()):
            csr_s, blas_s = spans_s[2 * number : 2 * number + 2]
            taken[name].append(
                {
                    "csr_s": csr_s,
                    "blas_s": blas_s,
                    "write_out_s": written[number][0],
                    "nonzeros": one.nnz,
                    "numbers": one.shape[0] * one.shape[1],
                    "bytes": stored_bytes(smaller(one)),
                }
            )
    thin = matrix[:, : max(16, t // 20)].astype(np.float64)
    some = matrix[:, : t // PART]
    by_blas_s = least_each(
        {
            name: lambda code=code: code.encode(map_dense(rows_of(some, code.k)))
            for name, code in codes.items()
        }
    )
    rows = [
        {
            "n": n,
            "s": s,
            "density": density,
            "code": name,
            **worker_row(taken[name]),
            **vector_encode_row(code, encode_s[name], PART * by_blas_s[name], taken[name], some),
            **decode_row(code, answers[name], seed),
            "float32": exactness(code, answers[name], direct, lambda z: join(z, r)),
            "float64": vector_float64(code, thin, x),
        }
        for name, code in codes.items()
    ]
    return rows, vector_ratios(rows)


def rows_of(matrix: Any, k: int) -> list[Any]:
    return [matrix[where] for where in slices(matrix.shape[0], k)]


def columns_of(matrix: Any, k: int) -> list[Any]:
    return [matrix[:, where] for where in slices(matrix.shape[1], k)]


def map_dense(blocks: list[Any]) -> list[NDArray[Any]]:
    return [dense(block) for block in blocks]


def least_each(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    return dict(zip(calls, least(list(calls.values()), 2, 1), strict=True))


def encode_row(csr_s: float, blas_s: float) -> Row:
    """blas_s: of written-out blocks, writing out included, from 1 / PART of the inputs: the work
    is the same for each of them, and all may exceed the memory."""
    return {"encode_csr_s": csr_s, "encode_blas_s": blas_s, "encode_s": min(csr_s, blas_s)}


def vector_encode_row(code: Code, csr_s: float, blas_s: float, taken: list[Row], some: Any) -> Row:
    """`encode_s`: the faster way to each worker's fastest form, conversion included."""
    blocks = map_dense(rows_of(some, code.k))
    bare = unit_blocks(code.generator) >= 0
    to_csr_s = to_blas_s = 0.0
    for worker, held in enumerate(code.encode(blocks)):
        if taken[worker]["csr_s"] > taken[worker]["blas_s"]:
            to_blas_s += taken[worker]["write_out_s"]
        elif not bare[worker]:  # a bare block is there as CSR
            to_csr_s += PART * timed(lambda held=held: csr_array(held))[0]
    found = encode_row(csr_s, blas_s)
    return {**found, "encode_s": min(csr_s + to_blas_s, blas_s + to_csr_s)}


def worker_row(taken: list[Row]) -> Row:
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


def vector_float64(code: Code, thin: Any, x: NDArray[Any]) -> Row:
    """End to end in float64, on some of the inputs."""
    some = x[: thin.shape[1]].astype(np.float64)
    answers = {i: held @ some for i, held in enumerate(code.encode(rows_of(thin, code.k)))}
    return exactness(code, answers, thin @ some, lambda z: join(z, thin.shape[0]))


def over(others: list[Row], row: Row, key: str) -> float:
    """The best of the others over this one."""
    return float(min(other[key] for other in others) / max(row[key], TINY))


def vector_ratios(rows: list[Row]) -> Row:
    """Above 1: the low-weight code needs less. Of the dense codes always the best, whether or not
    it can be decoded in float32."""
    by = {row["code"]: row for row in rows}
    low, mds, dense_row = by["low_weight"], by["mds"], by["dense_gaussian"]
    every = [by[name] for name in DENSE_CODES]
    full = [by[name] for name in FULL_CODES]
    return {
        "n": low["n"],
        "s": low["s"],
        "density": low["density"],
        "slowest_worker": over(every, low, "slowest_ms"),
        "slowest_worker_both_csr": over(every, low, "slowest_csr_ms"),
        "mean_worker_full_codes": over(full, low, "mean_ms"),
        "mean_worker_mds": over([mds], low, "mean_ms"),
        "most_bytes": over(every, low, "most_bytes"),
        "encoding_full_codes": over(full, low, "encode_s"),
        "encoding_full_codes_both_csr": over(full, low, "encode_csr_s"),
        "encoding_mds": over([mds], low, "encode_s"),
        "slowest_worker_uncoded": over([by["uncoded"]], low, "slowest_ms"),
        "slowest_worker_replication": over([by["replication"]], low, "slowest_ms"),
        # A worker's matrix that is filled less than this is faster as CSR, on this machine.
        "csr_pays_below": low["slowest_blas_ms"] / low["slowest_csr_ms"] * low["filled"],
        "low_weight_filled": low["filled"],
        "dense_filled": dense_row["filled"],
    }


# -- A^T B


def product_case(
    density: float, size: tuple[int, int, int], dtype: type, repetitions: int, seed: int
) -> tuple[list[Row], Row]:
    """All codes on A [t, r] and B [t, w]: a row of figures for each, and the ratios.

    The WATCHED workers with the most multiplications are measured: the slowest is among them.
    """
    t, r, w = size
    k_a, k_b, s = PRODUCT
    rng = np.random.default_rng([seed, round(1e4 * density)])
    a = random_sparse(r, t, density, dtype, rng)  # A^T: its rows are the columns of A
    b = random_sparse(t, w, density, dtype, rng)
    direct = (a.astype(np.float64) @ b.astype(np.float64)).toarray()
    codes = product_codes(k_a, k_b, s, seed)
    blocks_a, blocks_b = rows_of(a, k_a), columns_of(b, k_b)
    encode_s, held = {}, {}
    for name, code in codes.items():
        encode_s[name], held[name] = timed(lambda code=code: code.encode(blocks_a, blocks_b))
    some_a, some_b = a[:, : t // PART], b[: t // PART]
    by_blas_s = least_each(
        {
            name: lambda code=code: code.encode(
                map_dense(rows_of(some_a, k_a)), map_dense(columns_of(some_b, k_b))
            )
            for name, code in codes.items()
        }
    )
    taken = dict(zip(codes, watched([held[name] for name in codes], repetitions), strict=True))
    rows = []
    for name, code in codes.items():
        answers = {
            worker: dense(one) @ dense(other) for worker, (one, other) in enumerate(held[name])
        }
        rows.append(
            {
                "density": density,
                "dtype": np.dtype(dtype).name,
                "code": name,
                "weights": code.weights,
                **{
                    key: value for key, value in worker_row(taken[name]).items() if key != "mean_ms"
                },
                **encode_row(encode_s[name], PART * by_blas_s[name]),
                **decode_row(code, answers, seed, sets=2, repetitions=2),
                "exactness": exactness(code, answers, direct, lambda z: whole_product(z, a, b)),
            }
        )
    return rows, product_ratios(rows)


def multiplications(one: Any, other: Any) -> int:
    """Of a sparse product."""
    columns = np.bincount(one.indices, minlength=one.shape[1])
    return int(columns @ np.diff(other.indptr))


def watched(held: list[list[tuple[Any, Any]]], repetitions: int) -> list[list[Row]]:
    """Of every code, the workers with the most multiplications, measured in turn."""
    heaviest = [sorted(pairs, key=lambda pair: -multiplications(*pair))[:WATCHED] for pairs in held]
    taken: list[list[Row]] = [[] for _ in held]
    for turn in range(WATCHED):
        pairs = [of_code[turn] for of_code in heaviest]
        calls = []
        for one, other in pairs:
            left, right = dense(one), dense(other)
            calls += [
                lambda one=one, other=other: one @ other,
                lambda one=one, right=right: one @ right,
                lambda left=left, right=right: left @ right,
            ]
        spans_s = least(calls, repetitions, 1)
        for number, (one, other) in enumerate(pairs):
            of_forms = spans_s[len(FORMS) * number :]
            taken[number].append(
                {
                    **{f"{form}_s": s for form, s in zip(FORMS, of_forms, strict=False)},
                    "nonzeros": one.nnz + other.nnz,
                    "numbers": one.shape[0] * one.shape[1] + other.shape[0] * other.shape[1],
                    "bytes": stored_bytes(smaller(one)) + stored_bytes(smaller(other)),
                }
            )
    return taken


def whole_product(blocks: list[NDArray[Any]], a: Any, b: Any) -> NDArray[Any]:
    """Blocks p * k_b + q, each padded, as A^T B."""
    k_a, k_b, _ = PRODUCT
    bands = [join(blocks[p * k_b : (p + 1) * k_b], b.shape[1]).T for p in range(k_a)]
    return join(bands, a.shape[0]).T


def product_ratios(rows: list[Row]) -> Row:
    by = {row["code"]: row for row in rows}
    low, full = by["low_weight_product"], [by["polynomial"], by["dense_product"]]
    every = [*full, by["mds"]]
    return {
        "density": low["density"],
        "dtype": low["dtype"],
        "slowest_worker": over(every, low, "slowest_ms"),
        "slowest_worker_both_csr": over(every, low, "slowest_csr_ms"),
        "most_bytes": over(every, low, "most_bytes"),
        "encoding_full_codes": over(full, low, "encode_s"),
        "encoding_full_codes_both_csr": over(full, low, "encode_csr_s"),
        "encoding_mds": over([by["mds"]], low, "encode_s"),
        "slowest_worker_uncoded": over([by["uncoded"]], low, "slowest_ms"),
    }


# -- condition numbers


def condition_case(parameters: tuple[int, ...], seed: int) -> list[Row]:
    """The worst of all straggler sets, for (n, s), or (k_a, k_b, s) of a product."""
    if len(parameters) == 2:
        n, s = parameters
        codes = vector_codes(n, s, seed)
        case: Row = {"n": n, "s": s, "bound": lower_bound(n, s)}
        dense_names: tuple[str, ...] = ("dense_gaussian", "mds")
    else:
        k_a, k_b, s = parameters
        codes = product_codes(k_a, k_b, s, seed)
        n = k_a * k_b + s
        case = {"n": n, "s": s, "k_a": k_a, "k_b": k_b, "bound": lower_bound(n, s)}
        dense_names = ("dense_product", "mds")
    best = min(certified(codes[name]).worst_condition for name in (*dense_names, "polynomial"))
    return [
        {
            **case,
            "code": name,
            **certificate_row(code),
            "over_best_dense": certified(code).worst_condition / best,
        }
        for name, code in codes.items()
        if name not in ("uncoded", "replication")
    ]


def sparse(seed: int, progress: Progress, quick: bool = False) -> Row:
    """A^T x and A^T B on sparse matrices; progress(done, what) with done from 0 to 1."""
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
    with one_thread() as run:
        cores = run(blas_cores, 500 if quick else 3000)
        table = [row for parameters in conditions for row in run(condition_case, parameters, seed)]
        for n, s in vector_cases:
            for density in densities:
                progress((1 + len(vector)) / total, f"A^T x, n = {n}, density {density:.0%}")
                vector.append(run(vector_case, n, s, density, shape, repetitions, seed))
        for density in product_densities:
            for dtype in (np.float32, np.float64):
                done = 1 + len(vector) + len(product)
                progress(done / total, f"A^T B, density {density:.0%}, {dtype.__name__}")
                product.append(run(product_case, density, size, dtype, repetitions, seed))
    ratios, of_product = [ratio for _, ratio in vector], [ratio for _, ratio in product]
    aims = [
        at_least(1.5, "A^T x", "slowest_worker", ratios),
        at_least(1.5, "A^T B", "slowest_worker", of_product),
        at_least(5, "A^T x", "encoding_full_codes", ratios),
        at_least(5, "A^T x", "encoding_full_codes_both_csr", ratios),
        condition_aim(table),
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
    return short(report)


def at_least(aim: float, of: str, key: str, ratios: list[Row]) -> Row:
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


def condition_aim(table: list[Row]) -> Row:
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


# -- scale


def scale_case(n: int, s: int, shape: tuple[int, int], samples: int, seed: int) -> list[Row]:
    """mds and low_weight for one layer A^T [r, t], density SCALE_DENSITY, cut for n workers.

    In float64; `float32` says what comes of answers that travel as float32.
    """
    r, t = shape
    rng = np.random.default_rng([seed, n, s])
    matrix = random_sparse(r, t, SCALE_DENSITY, np.float64, rng)
    x = rng.standard_normal(t)
    direct = matrix @ x
    rows = []
    for name, make in (("mds", Code.mds), ("low_weight", Code.low_weight)):
        made_s, code = timed(lambda make=make: make(n, s, seed, SCALE_TRIALS))
        certified_s, found = timed(lambda code=code: code.certify(samples=samples, seed=seed))
        blocks = rows_of(matrix, code.k)
        encoded_s, held = timed(lambda code=code, blocks=blocks: code.encode(blocks))
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
                **decode_row(code, answers, seed),
                "float64": losses_row(code, answers, direct, seed + 1),
                "float32": losses_row(code, narrow(answers), direct, seed + 1),
            }
        )
    return rows


def narrow(answers: dict[int, NDArray[Any]]) -> dict[int, NDArray[Any]]:
    return {worker: answer.astype(np.float32) for worker, answer in answers.items()}


def losses_row(code: Code, answers: dict[int, Any], direct: Any, seed: int, sets: int = 20) -> Row:
    """The largest error over random sets of stragglers, and how many decoding refuses because no
    digit would be right."""
    errors = []
    for alive in random_losses(code, sets, seed):
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


def waiting(n: int, s: int, runs: int, seed: int) -> Row:
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


def scale(seed: int, progress: Progress, quick: bool = False) -> Row:
    """10 to 1,000 workers; progress(done, what) with done from 0 to 1."""
    workers = SCALE_WORKERS[:2] if quick else SCALE_WORKERS
    shape = (1000, 1000) if quick else (16_000, 4000)
    samples, runs = (50, 500) if quick else (500, 5000)
    cases = [(n, s) for n in workers for s in SCALE_LOSSES if s < n]
    rows: list[Row] = []
    with one_thread() as run:
        for number, (n, s) in enumerate(cases):
            progress(number / len(cases), f"{n} workers, any {s} may vanish")
            rows += run(scale_case, n, s, shape, samples, seed)
    report = {
        "seed": seed,
        "blas_threads": 1,
        "size": {"t": shape[1], "r": shape[0], "density": SCALE_DENSITY, "dtype": "float64"},
        "trials": SCALE_TRIALS,
        "codes": rows,
        "waiting": [waiting(n, s, runs, seed) for n, s in cases],
    }
    return short(report)


def main() -> None:
    parse = parser(__doc__)
    parse.add_argument("--only", choices=["sparse", "scale"], help="one part alone")
    parse.add_argument("--seed", type=int, default=0, help="of matrices, codes and losses [0]")
    parse.add_argument("--quick", action="store_true", help="small sizes, in seconds")
    arguments = parse.parse_args()
    ended_cleanly()
    report = header("sparse_codes")
    for name, part in (("sparse", sparse), ("scale", scale)):
        if arguments.only in (None, name):
            with bar(name, 1.0) as progress:
                report[name] = part(arguments.seed, progress, arguments.quick)
    show(report, one_line=arguments.json)
    sys.exit(0 if report.get("sparse", {}).get("holds", True) else 1)


if __name__ == "__main__":
    main()
