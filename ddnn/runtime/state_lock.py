"""The lock of a node's state: one process at a time uses the files of a node.

STATE/NODE.lock is locked while the process runs, and says which process it is. No other user reads
the files of a node.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from pathlib import Path

import msgspec

from ddnn.errors import ConfigError

log = logging.getLogger(__name__)
INSTANCE_BITS = 52  # what JSON readers hold exactly
MAX_BYTES = 1000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Process(msgspec.Struct):
    """The content of the lock file."""

    instance: int
    boot: str  # of the machine: a copied card holds the file of another one's


class StateLock:
    """Held until the process ends. instance: a random number of the process."""

    def __init__(self, directory: Path, node: str) -> None:
        """Raises ConfigError where another process of the node uses the directory.

        A directory that cannot be written is not locked: the program that writes there reports it.
        """
        restrict_files(directory, node)
        self.instance = secrets.randbits(INSTANCE_BITS) | 1
        self._file = -1
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path = _find_path(directory, node)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = msgspec.json.encode(_Process(self.instance, _read_boot_id()))
            os.truncate(self._file, 0)
            os.write(self._file, content)
        except BlockingIOError:
            raise ConfigError(
                f"another process runs node {node} with the state directory {directory}; stop it, "
                "or give this one another --node and --state"
            ) from None
        except OSError as error:
            log.warning("the state directory %s is not locked: %s", directory, error)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def restrict_files(directory: Path, node: str) -> None:
    """Let this user alone read and write the node's files, and those that this process makes.

    Answers say who was seen when.
    """
    os.umask(0o077)
    for file in directory.glob(f"{node}.*"):
        with contextlib.suppress(OSError):  # of another user: writing it fails, and is reported
            if file.is_file() and not file.is_symlink():
                file.chmod(0o600)


def read_instance(directory: Path, node: str) -> int:
    """The process that used the directory last since this machine was started; 0: unknown."""
    try:
        with _find_path(directory, node).open("rb") as file:
            process = msgspec.json.decode(file.read(MAX_BYTES), type=_Process)
    except (OSError, msgspec.MsgspecError):
        return 0
    return process.instance if process.boot == _read_boot_id() else 0


def _find_path(directory: Path, node: str) -> Path:
    return directory / f"{node}.lock"


def _read_boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
