"""Sparse matrices and times of products, measured in a process whose BLAS has one thread."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
TINY = 1e-12

Result = TypeVar("Result")


@contextmanager
def running_single_thread() -> Iterator[Callable[..., Any]]:
    """Yields run(function, *arguments), which calls in a new process: BLAS reads its number of
    threads when it is loaded."""
    before = {name: os.environ.get(name) for name in THREADS}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        os.environ.update(dict.fromkeys(THREADS, "1"))
        try:
            pool.submit(int).result()  # starts the process
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def measure_blas_cores(size: int) -> float:
    """Processor seconds per second of a large product: 1 for one thread."""
    square = np.ones((size, size), np.float32)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for _ in range(3):
        square @ square
    return (time.process_time() - began_cpu_s) / (time.perf_counter() - began_s)


def time_call(call: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of a call, and its result."""
    began_s = time.perf_counter()
    result = call()
    return time.perf_counter() - began_s, result


def least_times_s(
    calls: Sequence[Callable[[], Any]], repetitions: int, warm: int = 2
) -> list[float]:
    """The least seconds of each call.

    Calls take turns, each `warm` times in a row, because a worker has its caches to itself.
    """
    best = [float("inf")] * len(calls)
    for _ in range(repetitions):
        for number, call in enumerate(calls):
            best[number] = min(best[number], *(time_call(call)[0] for _ in range(warm)))
    return best


def round_report(report: dict[str, Any]) -> dict[str, Any]:
    """The report with all floats in it rounded to four digits."""
    return {key: _round_floats(item) for key, item in report.items()}


def _round_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return round_report(value)
    if isinstance(value, list | tuple):
        return [_round_floats(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value


def draw_sparse(
    rows: int, columns: int, density: float, dtype: type, rng: np.random.Generator
) -> Any:
    """CSR with independent nonzeros, N(0, 1): the gaps between them are geometric."""
    size = rows * columns
    count = int(size * density + 6 * np.sqrt(size * density) + 16)
    places = np.cumsum(rng.geometric(density, count)) - 1
    places = places[places < size]
    pointers = np.searchsorted(places, np.arange(rows + 1) * columns)
    values: NDArray[Any] = rng.standard_normal(len(places), np.float32).astype(dtype)
    kind = np.int32
    parts = values, (places % columns).astype(kind), pointers.astype(kind)
    return csr_array(parts, shape=(rows, columns))


def relative_error(decoded: NDArray[Any], direct: NDArray[Any]) -> float:
    wide = decoded.astype(np.float64)
    return float(np.linalg.norm(wide - direct)) / max(float(np.linalg.norm(direct)), TINY)
