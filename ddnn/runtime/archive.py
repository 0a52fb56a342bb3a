"""Reader of untrusted .npz files: every header is checked before memory is allocated.

An .npz file is a zip archive of .npy members, each a short header (dtype, shape) and raw data. The
headers are read and compared with the specification first; only then is an array allocated.
Nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ddnn.core.text import fold_name
from ddnn.errors import ConfigError

MAX_ARRAY_BYTES = 2**31
"""Limit of one array; the largest data set supported here has 63 MB."""
MAX_EXPANSION = 1100
"""Limit of bytes per compressed byte: deflate reaches 1032, so more means a false header."""
MAX_HEADER_BYTES = 4096
MAX_MEMBERS = 1000
MAX_CLASSES = 1000

_KINDS = {"u": "unsigned integer", "i": "signed integer", "f": "float", "U": "text"}


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The dtype and shape that an array must have.

    kinds: accepted kinds of dtype, of "uifU" (unsigned, signed, float, text)
    shape: the length of each axis, None for any length of at least 1
    itemsize: bytes of one element, None for any
    optional: whether the file may lack the array
    """

    kinds: str
    shape: tuple[int | None, ...]
    itemsize: int | None = None
    optional: bool = False

    def __str__(self) -> str:
        kinds = " or ".join(_KINDS[kind] for kind in self.kinds)
        bits = f" of {8 * self.itemsize} bits" if self.itemsize else ""
        return f"{kinds}{bits} [{', '.join('n' if n is None else str(n) for n in self.shape)}]"

    def accepts(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Whether an array of this dtype and shape meets the specification."""
        return (
            dtype.kind in self.kinds
            and dtype.names is None
            and self.itemsize in (None, dtype.itemsize)
            and len(shape) == len(self.shape)
            and all(
                n >= 1 and n == (n if want is None else want)
                for n, want in zip(shape, self.shape, strict=True)
            )
        )


def read_npz(path: Path, expected: Mapping[str, ArraySpec]) -> dict[str, NDArray[Any]]:
    """The expected arrays of an .npz file; other arrays in it are ignored.

    Raises ConfigError where the file cannot be read or an array does not meet its specification.
    """
    with convert_read_errors(path), zipfile.ZipFile(require_file(path)) as archive:
        if len(archive.namelist()) > MAX_MEMBERS:
            raise ConfigError(f"{path}: more than {MAX_MEMBERS} members; expected {list(expected)}")
        missing = [
            name
            for name, want in expected.items()
            if f"{name}.npy" not in archive.namelist() and not want.optional
        ]
        if missing:
            has = sorted(name.removesuffix(".npy")[:40] for name in archive.namelist())[:20]
            raise ConfigError(
                f"{path}: no array {', '.join(missing)}; it has {', '.join(has) or 'nothing'}; "
                f"expected {', '.join(f'{name}: {want}' for name, want in expected.items())}"
            )
        return {
            name: _read_member(archive, path, name, want)
            for name, want in expected.items()
            if f"{name}.npy" in archive.namelist()
        }


def read_all(path: Path, limit_bytes: int) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file, of numbers.

    Raises ConfigError where the file cannot be read, has an array of anything else, or has more
    than `limit_bytes` in all.
    """
    with convert_read_errors(path), zipfile.ZipFile(require_file(path)) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > limit_bytes:
            raise ConfigError(f"{path}: {total} bytes; at most {limit_bytes} are read")
        names = [member.filename.removesuffix(".npy") for member in members]
        return {name: _read_member(archive, path, name, None) for name in names}


def require_file(path: Path) -> Path:
    """The path of a regular file; opening a pipe or a device could block.

    Raises ConfigError for anything else.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "there is no such file"
        raise ConfigError(f"{path}: {what}; expected a data file: correct the path after the colon")
    return path


def check_range(
    values: NDArray[np.integer[Any]], low: int, high: int, name: str, path: Path
) -> None:
    """Raise ConfigError where an integer lies outside low..high."""
    least, most = int(values.min()), int(values.max())
    if least < low or most > high:
        raise ConfigError(
            f"{path}: {name} has values from {least} to {most}; expected {low} to {high}"
        )


def read_class_names(array: NDArray[Any], path: Path) -> tuple[str, ...]:
    """The names in a text array [classes].

    Raises ConfigError unless there are two or more, all different.
    """
    with convert_read_errors(path):  # the text may hold invalid code points
        names = tuple(str(name) for name in array)
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names) or not all(names):
        raise ConfigError(
            f"{path}: classes {names[:10]}; expected 2 to {MAX_CLASSES} different names"
        )
    if len({fold_name(name) for name in names}) != len(names):
        raise ConfigError(
            f"{path}: classes {', '.join(map(ascii, names[:10]))}: some differ only by case, space "
            "or Unicode normalization; name one class alike"
        )
    return names


@contextmanager
def convert_read_errors(path: Path) -> Iterator[None]:
    """Context in which every error raised by reading `path` becomes a ConfigError that names it."""
    try:
        yield
    except ConfigError:
        raise
    # zipfile, zlib, ast, numpy and pillow raise some fifteen unrelated types for broken files.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"{path}: cannot be read ({reason}): broken, truncated or of another format; "
            "copy it again from its origin"
        ) from None


def _read_member(
    archive: zipfile.ZipFile, path: Path, name: str, want: ArraySpec | None
) -> NDArray[Any]:
    """want: None: an array of numbers."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        dtype, shape, header_bytes = _read_header(member)
    # These are Python integers, so the product cannot overflow.
    declared = math.prod(shape) * dtype.itemsize
    accepted = dtype.kind in "uifb" if want is None else want.accepts(dtype, shape)
    if dtype.hasobject or not accepted:
        wanted = "numbers" if want is None else want
        raise ConfigError(f"{path}: array {name} is {dtype} {list(shape)}; expected {wanted}")
    held = info.file_size - header_bytes
    packed = min(info.compress_size, path.stat().st_size)
    if declared != held or held > MAX_EXPANSION * packed:
        raise ConfigError(
            f"{path}: array {name} declares {declared} bytes but holds {held} in "
            f"{packed}: broken or truncated; copy it again from its origin"
        )
    if declared > MAX_ARRAY_BYTES:
        raise ConfigError(
            f"{path}: array {name} has {declared} bytes; at most {MAX_ARRAY_BYTES} are read: "
            "split the data into several files"
        )
    with archive.open(info) as member:
        array: NDArray[Any] = npy.read_array(
            member, allow_pickle=False, max_header_size=MAX_HEADER_BYTES
        )
        member.read(1)  # zipfile compares the checksum at the end of the member
    return array


def _read_header(member: Any) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Dtype, shape and length in bytes of the header of an .npy file."""
    version = npy.read_magic(member)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy format {version[0]}.{version[1]}; expected 1.0 or 2.0")
    shape, _, dtype = readers[version](member, max_header_size=MAX_HEADER_BYTES)
    return dtype, shape, member.tell()
