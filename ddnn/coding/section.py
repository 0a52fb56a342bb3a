"""A dense layer as a section: BLAS or CSR, whichever is faster for this matrix on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy import sparse

from ddnn.core.section import Array, Arrays
from ddnn.errors import SectionError

Matrix = Any
"""A numpy array or any scipy sparse matrix."""

MAX_INPUTS = 1 << 24
REPETITIONS = 20  # BLAS with several threads reaches its speed only after a few calls
MAX_TRIAL_S = 0.25
MAX_GROWTH = 8  # a sparse matrix that grows more than this when made dense is faster as CSR
SMALL_BYTES = 1 << 20  # always measured as dense: for a small matrix the cost of a call decides


def count_stored_bytes(kernel: Matrix) -> int:
    """The memory of a matrix: its values, and for CSR the indices."""
    if sparse.issparse(kernel):
        return int(kernel.data.nbytes + kernel.indices.nbytes + kernel.indptr.nbytes)
    return int(kernel.nbytes)


def compact(kernel: Matrix) -> Matrix:
    """The matrix in the form that takes less memory: CSR, or dense where about half is nonzero."""
    rows, columns = kernel.shape
    itemsize = kernel.dtype.itemsize
    nonzeros = kernel.nnz if sparse.issparse(kernel) else int(np.count_nonzero(kernel))
    if (itemsize + 4) * nonzeros + 4 * (rows + 1) < itemsize * rows * columns:
        return sparse.csr_array(kernel)
    return to_dense(kernel)


def to_dense(kernel: Matrix) -> Array:
    """The matrix as an array."""
    array: Array = kernel.toarray() if sparse.issparse(kernel) else kernel
    return array


def pack_matrix(kernel: Matrix) -> dict[str, Array]:
    """A kernel [in, out] as the arrays that a file contains, float32, in the smaller form.

    dense   kernel float32 [in, out]
    sparse  the transposed kernel [out, in] by rows (CSR): data float32 [nonzeros], indices int32
            or int64 [nonzeros], indptr the same [out + 1]; and inputs int64 []
    """
    kernel = compact(kernel.astype(np.float32))
    if not sparse.issparse(kernel):
        return {"kernel": np.ascontiguousarray(kernel)}
    rows = sparse.csr_array(kernel.T)
    inputs = np.array(kernel.shape[0], np.int64)
    return {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr, "inputs": inputs}


def unpack_matrix(arrays: Arrays) -> Matrix:
    """The inverse of `pack_matrix`. Raises SectionError where an index is out of range.

    scipy's products do not check indices, and its full check accepts row pointers that return to 0.
    """
    if "kernel" in arrays:
        return arrays["kernel"]
    data, indices, indptr = arrays["data"], arrays["indices"], arrays["indptr"]
    inputs = int(arrays["inputs"])
    if not 1 <= inputs <= MAX_INPUTS:
        raise SectionError(f"{inputs} inputs; expected 1 to {MAX_INPUTS}")
    if (
        indptr.dtype != indices.dtype
        or indptr[:1].tolist() != [0]
        or not len(data) == len(indices) == indptr[-1]
        or (indptr[1:] < indptr[:-1]).any()
    ):
        raise SectionError("indptr: expected rows one after the other over all of the data")
    if len(indices) and not 0 <= indices.min() <= indices.max() < inputs:
        raise SectionError(f"indices: expected 0 to {inputs - 1}, got others")
    return sparse.csr_array((data, indices, indptr), shape=(len(indptr) - 1, inputs)).T


class MatrixSection:
    """z = x @ kernel + bias, for x float32 [..., in].

    kernel: float32 [in, out], dense or scipy sparse; bias: float32 [out] or None
    clock: seconds, to measure both forms. `form` names the faster one; the other is discarded.
        They are measured on one x; with many rows at once BLAS gains more.
    Raises SectionError where an array has another shape or type.
    """

    form: Literal["blas", "csr"]

    def __init__(self, kernel: Matrix, bias: Array | None, clock: Callable[[], float]) -> None:
        if kernel.ndim != 2 or kernel.dtype != np.float32:
            raise SectionError(
                f"kernel: got {kernel.dtype} {kernel.shape}, expected float32 [in, out]"
            )
        self.inputs, self.outputs = kernel.shape
        if bias is not None and (bias.shape != (self.outputs,) or bias.dtype != np.float32):
            raise SectionError(
                f"bias: got {bias.dtype} {bias.shape}, expected float32 ({self.outputs},)"
            )
        self._bias = bias
        self._matrix: Matrix
        kernel = compact(kernel)
        if not sparse.issparse(kernel):  # CSR would read more bytes for the same product
            self.form, self._matrix = "blas", kernel
            return
        # With the transpose by rows each output is one inner product over its own nonzeros.
        by_rows = sparse.csr_array(kernel.T)
        self.form, self._matrix = "csr", by_rows
        dense_bytes = kernel.dtype.itemsize * self.inputs * self.outputs
        if dense_bytes > max(SMALL_BYTES, MAX_GROWTH * count_stored_bytes(by_rows)):
            return
        csr_s = self._measure_s(clock)
        self.form, self._matrix = "blas", to_dense(kernel)
        if csr_s <= self._measure_s(clock):
            self.form, self._matrix = "csr", by_rows

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        x = inputs.get("x")
        if x is None or x.dtype != np.float32 or x.shape[-1:] != (self.inputs,):
            got = "nothing" if x is None else f"{x.dtype} {x.shape}"
            raise SectionError(f"input x: got {got}, expected float32 (..., {self.inputs})")
        if self.form == "blas":
            z = x @ self._matrix
        else:
            rows = x.reshape(-1, self.inputs)
            z = (self._matrix @ rows.T).T.reshape(*x.shape[:-1], self.outputs)
        return {"z": z if self._bias is None else z + self._bias}

    def example(self) -> dict[str, Array]:
        """Zero inputs, to warm up the section."""
        return {"x": np.zeros(self.inputs, np.float32)}

    def _measure_s(self, clock: Callable[[], float]) -> float:
        """The least time of a call."""
        example = self.example()
        spans_s: list[float] = []
        while len(spans_s) < REPETITIONS and sum(spans_s) < MAX_TRIAL_S:
            start_s = clock()
            self(example)
            spans_s.append(clock() - start_s)
        return min(spans_s)  # other programs on this machine only add time
