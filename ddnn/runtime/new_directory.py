"""A directory that is written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddnn.errors import ConfigError

CHUNK_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: the limit of a file's size


@contextmanager
def write_directory(out: Path) -> Iterator[Path]:
    """Yield a fresh directory beside `out`, which takes its place when the block ends.

    Where the block raises, nothing is left behind. Raises ConfigError, before the block, where
    `out` is not an empty directory or cannot be written; and where the disk is full.
    """
    out = Path(os.path.realpath(out))  # of a link to a directory, that takes the fresh one's place
    try:
        out.name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"--out {str(out)!a}: its name is not UTF-8; use another") from None
    if out.is_mount():
        raise ConfigError(f"--out {out} is a mount point; name a directory in it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} is not an empty directory; remove it or choose another")
    fresh = out.with_name(f".{out.name}.partial")
    with convert_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if fresh.exists():  # of a run that was killed
            with _hold(fresh, out):
                shutil.rmtree(fresh)
        fresh.mkdir()
    try:
        with _hold(fresh, out):
            yield fresh
            with convert_write_errors(out):
                fresh.replace(out)
    except OSError as error:
        if not is_full(error):
            raise
        reason = error.strerror or error
        raise ConfigError(f"{error.filename or out}: {reason}; make room there") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def _hold(directory: Path, out: Path) -> Iterator[None]:
    """Lock a directory; ConfigError where another process writes it. Some file systems of networks
    have no locks."""
    lock = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another process is writing {out}; wait for it, or name another directory"
                ) from None
        yield
    finally:
        os.close(lock)


def require_writable(file: Path) -> None:
    """Raise ConfigError unless a file can be written there."""
    with convert_write_errors(file):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        with tempfile.TemporaryFile(dir=file.absolute().parent):
            pass


def is_full(error: OSError) -> bool:
    """Whether the disk is full; libraries that write files in C name the reason in text only."""
    return error.errno in FULL or any(os.strerror(number) in str(error) for number in FULL)


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Context in which an OSError, such as of a full disk, becomes a ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}; make room, give it to this "
            "user, or name another directory"
        ) from None


def require_space(directory: Path, size_bytes: int) -> None:
    """Raise ConfigError unless a file of this size can be written in the directory."""
    probe = directory / "space"
    with convert_write_errors(directory):
        try:
            with probe.open("wb") as file:
                for start in range(0, size_bytes, CHUNK_BYTES):
                    file.write(bytes(min(CHUNK_BYTES, size_bytes - start)))
        finally:
            probe.unlink(missing_ok=True)
