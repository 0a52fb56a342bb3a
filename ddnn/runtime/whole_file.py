"""Files that are replaced as a whole: a reader finds the old content or the new one, also after the
process that wrote was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PART = ".part"  # the suffix of what a killed process leaves; its name begins with a dot


@contextmanager
def open_whole(path: Path, mode: int | None = None, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file to write, which replaces `path` once the block has ended without an error.

    mode: of the file, whatever the umask; None: as the umask has it. durable: content and name are
    on the disk when this returns; else a power failure may lose what was written last.
    Raises OSError.
    """
    fresh = path.with_name(f".{path.name}{PART}")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(fresh, flags, 0o666 if mode is None else mode), "wb") as file:
            yield file
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if durable:
        flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make the names in a directory last through a power failure. Raises OSError."""
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_whole(path: Path, data: bytes, mode: int | None = None, *, durable: bool = True) -> None:
    """Replace the content of a file; see open_whole."""
    with open_whole(path, mode, durable=durable) as file:
        file.write(data)
