"""Encoding: each worker's combination of the blocks, dense or CSR as the blocks are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ddnn.coding.conditioning import find_uncoded_blocks
from ddnn.errors import ConfigError

DENSE_FROM = 0.25  # density of the coefficients from which BLAS is faster than a sparse product


def encode(coefficients: NDArray[np.float64], blocks: Iterable[Any]) -> list[Any]:
    """The n combinations of the k blocks; none shares memory with another or with a block.

    coefficients: float64 [n, k]
    blocks: k arrays, or k sparse matrices (the combinations are CSR then). They may differ along
    one axis: shorter ones count as padded with zeros to the longest. float32 blocks give float32
    combinations, integers give float64. Where a value overflows or is not finite in a block, it is
    not finite in the combination.

    Raises ConfigError where the blocks do not fit the coefficients or each other.
    """
    blocks = list(blocks)
    if len(blocks) != coefficients.shape[1]:
        raise ConfigError(f"got {len(blocks)} blocks, the code takes {coefficients.shape[1]}")
    are_sparse = [sparse.issparse(block) for block in blocks]
    if any(are_sparse) != all(are_sparse):
        raise ConfigError("blocks are partly sparse, partly dense: convert them to one kind")
    with np.errstate(over="ignore", invalid="ignore"):
        if all(are_sparse):
            return _encode_sparse(coefficients, blocks)
        return _encode_dense(coefficients, [np.asarray(block) for block in blocks])


def choose_dtype(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    """The type to compute with: float32 where that is enough for all arrays, else float64."""
    for dtype in set(dtypes):
        if dtype.kind not in "fiu":
            raise ConfigError(f"arrays of {dtype} cannot be coded: real numbers are needed")
    widest = np.result_type(*dtypes)
    if widest.kind != "f":
        return np.dtype(np.float64)
    return np.result_type(widest, np.float32)  # float16 would lose what decoding needs


def _find_common_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape to which all blocks are padded."""
    if len({len(shape) for shape in shapes}) > 1:
        raise ConfigError(f"blocks of different rank: {sorted(set(shapes))}")
    largest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    uneven = {axis for shape in shapes for axis, size in enumerate(shape) if size < largest[axis]}
    if len(uneven) > 1:
        raise ConfigError(f"blocks may differ along one axis only: {sorted(set(shapes))}")
    return largest


def _encode_dense(coefficients: NDArray[np.float64], blocks: list[NDArray[Any]]) -> list[Any]:
    dtype = choose_dtype([block.dtype for block in blocks])
    shape = _find_common_shape([block.shape for block in blocks])
    stacked = np.zeros((len(blocks), *shape), dtype)
    for index, block in enumerate(blocks):
        inside: tuple[Any, ...] = (index, *(slice(size) for size in block.shape))
        stacked[inside] = block
    uncoded = find_uncoded_blocks(coefficients)
    mixed = np.flatnonzero(uncoded < 0)
    part = coefficients[mixed].astype(dtype)
    flat = stacked.reshape(len(blocks), int(np.prod(shape)))
    sparse_enough = np.count_nonzero(part) < DENSE_FROM * part.size
    combined = (sparse.csr_array(part) if sparse_enough else part) @ flat
    first = set(np.unique(uncoded, return_index=True)[1].tolist())
    encoded = [stacked[b] if w in first else stacked[b].copy() for w, b in enumerate(uncoded)]
    for worker, row in zip(mixed, combined, strict=True):
        encoded[worker] = row.reshape(shape)
    return encoded


def _encode_sparse(coefficients: NDArray[np.float64], blocks: Sequence[Any]) -> list[Any]:
    dtype = choose_dtype([block.dtype for block in blocks])
    rows, columns = _find_common_shape([block.shape for block in blocks])
    padded = [_pad(block.tocsr().astype(dtype, copy=False), (rows, columns)) for block in blocks]
    kind = sparse.csr_array if isinstance(blocks[0], sparse.sparray) else sparse.csr_matrix
    encoded = []
    for worker, block in enumerate(find_uncoded_blocks(coefficients)):
        if block >= 0:
            encoded.append(kind(padded[block], copy=True))
            continue
        support = np.flatnonzero(coefficients[worker])
        if not support.size:
            encoded.append(kind((rows, columns), dtype=dtype))
            continue
        terms = [padded[b] * dtype.type(coefficients[worker, b]) for b in support]
        while len(terms) > 1:  # in pairs, so that the time is linear in nonzeros * log(weight)
            pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
            terms = pairs + terms[len(terms) // 2 * 2 :]
        encoded.append(kind(terms[0]))
    return encoded


def _pad(block: Any, shape: tuple[int, int]) -> Any:
    """The matrix in a larger shape, as CSR; its nonzeros are shared, not copied."""
    if block.shape == shape:
        return sparse.csr_array(block)
    pointers = np.pad(block.indptr, (0, shape[0] - block.shape[0]), mode="edge")
    return sparse.csr_array((block.data, block.indices, pointers), shape=shape)
