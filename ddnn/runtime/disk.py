"""The state directory: whether it can be written, and the space that is left for answers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from ddnn.errors import ConfigError

PROBE_BYTES = 4096  # about the size of the answers that a short outage leaves


class FreeSpace(NamedTuple):
    """What a file system has left for this user; `free_files` is None where files have no limit."""

    free_bytes: int
    free_files: int | None


def require_writable(directory: Path) -> None:
    """Raise ConfigError unless a file can be written there, or the directory can be made.

    Leaves nothing behind: a directory made by another user than the node's has the wrong owner.
    """
    try:
        nearest = _find_nearest(directory)
        if nearest == directory:
            with tempfile.TemporaryFile(dir=directory) as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
        elif not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is no directory")
        elif not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(f"it cannot be made in {nearest}")
    except OSError as error:
        raise ConfigError(
            f"the state directory {directory} cannot be written: {error.strerror or error}; "
            "make room, give it to this user, or name another by --state"
        ) from None


def measure_free_space(directory: Path) -> FreeSpace:
    """The free space of the file system that the directory is on, or would be made on."""
    found = os.statvfs(_find_nearest(directory))
    return FreeSpace(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def _find_nearest(directory: Path) -> Path:
    """The directory, or the nearest of its parents that exists."""
    while not directory.exists():
        directory = directory.parent
    return directory
