"""Matrix sections: both forms give the same product, and the faster one is used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse

from ddnn.coding.section import (
    REPETITIONS,
    MatrixSection,
    compact,
    count_stored_bytes,
    pack_matrix,
    unpack_matrix,
)
from ddnn.errors import SectionError


def draw_kernel(inputs: int, outputs: int, density: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kept = rng.random((inputs, outputs)) < density
    return (rng.normal(size=(inputs, outputs)) * kept).astype(np.float32)


def fail_to_measure() -> float:
    raise AssertionError("measured, although one form is smaller or much larger")


def make_clock(*spans_s: float) -> Callable[[], float]:
    """A clock by which each call of the n-th form takes the n-th span."""
    times_s = [0.0]
    for span_s in spans_s:
        for _ in range(REPETITIONS):
            times_s += [times_s[-1], times_s[-1] + span_s]
    return iter(times_s[1:]).__next__


@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (2, 3, 7), (0, 7)])
@pytest.mark.parametrize("form", ["blas", "csr"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_both_forms_give_the_product(shape: tuple[int, ...], form: str, with_bias: bool) -> None:
    kernel = draw_kernel(7, 5, 0.3)
    bias = np.arange(5, dtype=np.float32) if with_bias else None
    clock = make_clock(2e-6, 1e-6) if form == "blas" else make_clock(1e-6, 2e-6)
    section = MatrixSection(kernel, bias, clock)
    assert section.form == form
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    z = section({"x": x})["z"]
    assert z.dtype == np.float32
    expected = x.astype(np.float64) @ kernel + (0 if bias is None else bias)
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("given_as", [np.asarray, sparse.csr_array, sparse.csr_matrix])
def test_a_sparse_kernel_is_the_same_kernel(density: float, given_as: Callable) -> None:
    kernel = draw_kernel(30, 20, density)
    x = np.linspace(-1, 1, 30, dtype=np.float32)
    z = MatrixSection(given_as(kernel), None, time.perf_counter)({"x": x})["z"]
    assert z.shape == (20,)
    np.testing.assert_allclose(z, x @ kernel, rtol=1e-5, atol=1e-5)


def test_a_full_matrix_is_dense_without_measuring() -> None:
    assert MatrixSection(draw_kernel(40, 30, 1.0), None, fail_to_measure).form == "blas"
    assert MatrixSection(draw_kernel(40, 30, 0.6), None, fail_to_measure).form == "blas"
    assert (
        MatrixSection(sparse.csr_array(draw_kernel(9, 9, 0.9)), None, fail_to_measure).form
        == "blas"
    )


def test_a_large_and_nearly_empty_matrix_is_never_made_dense() -> None:
    """It would need 10 GB, more than a worker has."""
    at = np.arange(50_000)
    kernel = sparse.csr_array((np.ones(50_000, np.float32), (at, at)), shape=(50_000, 50_000))
    section = MatrixSection(kernel, None, fail_to_measure)
    assert section.form == "csr"
    x = np.arange(50_000, dtype=np.float32)
    np.testing.assert_array_equal(section({"x": x})["z"], x)


MEASURED = """
import time
from timeit import repeat
import numpy as np
from scipy import sparse
from ddnn.coding.section import MatrixSection

rng = np.random.default_rng(0)
for density in (0.005, 0.02, 0.1, 0.45):
    kernel = rng.normal(size=(2000, 500)) * (rng.random((2000, 500)) < density)
    kernel = kernel.astype(np.float32)
    by_rows, x = sparse.csr_array(kernel.T), np.zeros(2000, np.float32)
    section = MatrixSection(kernel, None, time.process_time)
    forms = {"blas": lambda: x @ kernel, "csr": lambda: by_rows @ x}
    times_s = {
        form: min(repeat(run, timer=time.process_time, number=1, repeat=50))
        for form, run in forms.items()
    }
    assert times_s[section.form] <= 2 * min(times_s.values()), (density, section.form, times_s)
"""


def test_a_real_clock_finds_the_faster_form() -> None:
    """With one thread and processor time, so that other processes do not count."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-c", MEASURED]
    done = subprocess.run(run, env={**os.environ, **threads}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_slow_call_does_not_decide() -> None:
    """Another process used the processor during it: the minimum counts."""
    steps_s = [0.0, 0.2] + [0.0, 1e-6] * (REPETITIONS - 1) + [0.0, 2e-6] * REPETITIONS
    clock = iter(np.cumsum(steps_s)).__next__
    assert MatrixSection(draw_kernel(7, 5, 0.3), None, clock).form == "csr"


def test_slow_calls_are_not_repeated_for_long() -> None:
    times_s = iter([0.0, 9.0, 9.0, 12.0])
    assert MatrixSection(draw_kernel(7, 5, 0.3), None, times_s.__next__).form == "blas"


@pytest.mark.parametrize(
    "x",
    [np.zeros(6, np.float32), np.zeros(7), np.zeros((7, 6), np.float32), np.float32(1), None],
    ids=["too short", "float64", "wrong last axis", "scalar", "missing"],
)
def test_inputs_of_another_shape_or_type_are_refused(x: np.ndarray | None) -> None:
    section = MatrixSection(draw_kernel(7, 5, 1.0), None, fail_to_measure)
    with pytest.raises(SectionError, match="expected float32"):
        section({} if x is None else {"x": x})


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        (np.zeros((3, 2)), None),
        (np.zeros(3, np.float32), None),
        (np.zeros((3, 2), np.float32), np.zeros(3, np.float32)),
        (np.zeros((3, 2), np.float32), np.zeros(2)),
    ],
    ids=["float64", "vector", "bias of the inputs", "float64 bias"],
)
def test_kernels_and_biases_of_another_shape_or_type_are_refused(
    kernel: np.ndarray, bias: np.ndarray | None
) -> None:
    with pytest.raises(SectionError, match="expected float32"):
        MatrixSection(kernel, bias, fail_to_measure)


def test_the_example_runs() -> None:
    section = MatrixSection(draw_kernel(7, 5, 1.0), np.ones(5, np.float32), fail_to_measure)
    assert section(section.example())["z"].tolist() == [1.0] * 5


@pytest.mark.parametrize("density", [0.0, 0.1, 0.3, 0.45, 0.48, 0.5, 0.52, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compact_gives_the_smaller_form(density: float, dtype: type) -> None:
    kernel = draw_kernel(60, 40, density).astype(dtype)
    forms = [kernel, sparse.csr_array(kernel)]
    for form in forms:
        compacted = compact(form)
        assert compacted.dtype == dtype
        assert count_stored_bytes(compacted) == min(map(count_stored_bytes, forms))
        array = compacted.toarray() if sparse.issparse(compacted) else compacted
        np.testing.assert_array_equal(array, kernel)


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_a_kernel_is_equal_after_packing_and_unpacking(density: float) -> None:
    kernel = draw_kernel(11, 6, density)
    back = unpack_matrix(pack_matrix(kernel))
    array = back.toarray() if sparse.issparse(back) else back
    np.testing.assert_array_equal(array, kernel)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("indptr", [1, 1, 3]),
        ("indptr", [0, 5, 3]),
        ("indptr", [0, 1, 2]),
        ("indptr", [0, 1, 4]),
        ("indptr", [0, 9, 0]),
        ("indptr", []),
        ("indices", [0, 1, 4]),
        ("indices", [0, -1, 2]),
        ("indices", [0, 1]),
        ("inputs", 2**40),
        ("inputs", 0),
    ],
)
def test_indices_out_of_range_are_refused(name: str, values: list[int]) -> None:
    """A product with them would read memory outside of the arrays, or crash."""
    arrays: dict[str, np.ndarray] = {
        "data": np.ones(3, np.float32),
        "indices": np.array([0, 1, 3], np.int32),
        "indptr": np.array([0, 1, 3], np.int32),
        "inputs": np.array(4, np.int64),
    }
    assert unpack_matrix(arrays).shape == (4, 2)
    arrays[name] = np.array(values, arrays[name].dtype)
    with pytest.raises(SectionError):
        unpack_matrix(arrays)
