"""The state directory: whether answers can be kept in it, and how many more."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from ddnn.errors import ConfigError

PROBE_BYTES = 4096  # about as many answers as a short outage leaves


class Room(NamedTuple):
    """What is left for this user on a file system; `files` is None where it has no such limit."""

    free_bytes: int
    free_files: int | None


def require_writable(directory: Path) -> None:
    """ConfigError unless a file can be written there now, or the directory could be made.

    Nothing is left behind: a directory made by whoever only asks might be of the wrong owner.
    """
    try:
        nearest = _nearest(directory)
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


def room(directory: Path) -> Room:
    """The room on the file system that the directory is on, or would be."""
    found = os.statvfs(_nearest(directory))
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def _nearest(directory: Path) -> Path:
    """The directory, or what is there of the way to it."""
    while not directory.exists():
        directory = directory.parent
    return directory
