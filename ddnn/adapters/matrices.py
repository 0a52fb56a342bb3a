"""Section files by suffix: .tflite runs in LiteRT, .npz is a matrix for BLAS or scipy.

A matrix file is an .npz archive of the arrays of `ddnn.coding.section.matrix_arrays` and, where
there is one, bias float32 [out]. Its members are stored, not packed, so that none can promise more
than the file holds, and nothing in it is ever unpickled.
"""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ddnn.adapters.litert import LiteRtSection
from ddnn.core.section import Array, Section
from ddnn.errors import SectionError

MAX_MATRIX_BYTES = 1 << 30
MAX_HEADER_BYTES = 4096
_DENSE = {"kernel"}
_SPARSE = {"data", "indices", "indptr", "inputs"}
# Float32 and one axis where nothing else is said.
_DTYPES = {"indices": ("<i4", "<i8"), "indptr": ("<i4", "<i8"), "inputs": ("<i8",)}
_RANKS = {"kernel": 2, "inputs": 0}


def load_section(path: Path | str) -> Section:
    """The section in a file. Raises SectionError, once, for whatever is wrong with it."""
    path = Path(path)
    if path.suffix == ".tflite":
        if not path.exists():
            raise SectionError(f"there is no file {path}")
        return LiteRtSection(path)
    if path.suffix != ".npz":
        raise SectionError(f"{path} is no section file; expected .tflite or .npz")
    try:
        # Here, because only a node that lends its power to coded layers needs scipy.
        from ddnn.coding.section import MatrixSection
    except ImportError as error:
        raise SectionError(f"{path} needs scipy ({error}): pip install 'ddnn[coding]'") from None
    return MatrixSection(*read_matrix(path), time.perf_counter)


def write_matrix(path: Path | str, kernel: Any, bias: Array | None) -> None:
    """Write a kernel [in, out], an array or scipy sparse, as float32 in the smaller form."""
    from ddnn.coding.section import pack_matrix

    arrays = pack_matrix(kernel)
    if bias is not None:
        arrays["bias"] = bias.astype(np.float32)
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_matrix(path: Path | str) -> tuple[Any, Array | None]:
    """Kernel [in, out] and bias of a matrix file. Raises SectionError where it is broken."""
    from ddnn.coding.section import unpack_matrix

    try:
        arrays = _read_arrays(path)
        kernel, bias = unpack_matrix(arrays), arrays.get("bias")
        if 0 in kernel.shape or (bias is not None and bias.shape != kernel.shape[1:]):
            has = None if bias is None else bias.shape
            raise SectionError(f"the kernel has shape {kernel.shape}, the bias {has}")
    except FileNotFoundError:
        raise SectionError(f"there is no file {path}") from None
    except Exception as error:  # zipfile and numpy raise more than a dozen kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SectionError(f"{path} is not a usable matrix file: {reason}") from None
    return kernel, bias


def _read_arrays(path: Path | str) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [info.filename.removesuffix(".npy") for info in members]
        if len(set(names)) < len(names):
            raise SectionError(f"it has members of the same name: {names[:10]}")
        if set(names) - {"bias"} not in (_DENSE, _SPARSE):
            raise SectionError(
                f"it has {names[:10]}; expected {sorted(_DENSE)} or {sorted(_SPARSE)}"
            )
        if any(info.compress_type != zipfile.ZIP_STORED for info in members):
            raise SectionError("its members are packed")
        if sum(info.file_size for info in members) > MAX_MATRIX_BYTES:
            raise SectionError(f"more than {MAX_MATRIX_BYTES} bytes")
        return {
            name: _read_array(archive, info, name)
            for name, info in zip(names, members, strict=True)
        }


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Array:
    with archive.open(info) as member:
        if npy.read_magic(member) != (1, 0):
            raise SectionError(f"{name} is not in npy format 1.0")
        shape, by_columns, dtype = npy.read_array_header_1_0(
            member, max_header_size=MAX_HEADER_BYTES
        )
        expected = _DTYPES.get(name, ("<f4",))
        if dtype.str not in expected or len(shape) != _RANKS.get(name, 1) or by_columns:
            raise SectionError(f"{name} is {dtype} {shape}")
        # As many bytes as there are; `reshape` refuses a shape that promises others.
        array: Array = np.frombuffer(member.read(), dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise SectionError(f"{name} is not finite")
    return array
