"""Keeps answers on disk until the store has confirmed them: an append-only file of JSON lines.

Each answer is written before it is published, so that SIGKILL loses none. The file is emptied
whenever no answer is pending. Where at least half of a large file is of confirmed answers, the
pending ones are copied to a new file, a bounded number of bytes at each call, and the new file
takes the place of the old one once it is complete. An answer that was confirmed just before a crash
may be sent again: the store is idempotent.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ddnn.errors import ConfigError
from ddnn.protocol.messages import Answer

log = logging.getLogger(__name__)

COMPACT_BYTES = 4 << 20  # a smaller file is emptied when nothing is pending, and else left alone
COPY_BYTES = 256 << 10  # copied by one call, at most: the machine's thread waits for it
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Answer)


def read_answers(path: Path) -> list[Answer]:
    """Read the answers of a log, the newest per sample; skip what cannot be decoded.

    Such a line was truncated by a crash, or no store would accept its answer.
    """
    answers: dict[int, Answer] = {}
    skipped = 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            try:
                answer = _DECODER.decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                skipped += not line.isspace()
            else:
                answers[answer.sample] = answer
    if skipped:
        log.warning("%s: %d lines are no answers: they are skipped", path, skipped)
    return list(answers.values())


class FileAnswerLog:
    """The log of one node; only one thread may use it.

    A disk that is full, broken or read-only does not keep a node from starting. `keep` and `forget`
    raise OSError while the disk fails; the log stays usable, and writes again once there is room.
    """

    def __init__(self, path: Path) -> None:
        """Read what is pending. ConfigError where the path can never be written."""
        self._path = path
        self._file = -1  # negative: it could not be opened yet
        self._bytes = 0
        self._cut = False  # whether the last line may be incomplete
        self._copy: _Copy | None = None
        self._copy_above_bytes = COMPACT_BYTES
        self._unwritten: deque[int] = deque()  # samples that a full disk kept from the file
        try:
            self.pending = read_answers(path)
        except OSError as error:
            raise _refuse(path, error) from None
        self._lines = {a.sample: _ENCODER.encode(a) + b"\n" for a in self.pending}
        self._live_bytes = sum(map(len, self._lines.values()))
        try:
            self._open()
        except OSError as error:
            if error.errno not in FULL:
                raise _refuse(path, error) from None
            log.error("%s: answers are not kept on disk until there is room", error)

    def keep(self, answer: Answer) -> None:
        line = _ENCODER.encode(answer) + b"\n"
        self._live_bytes += len(line) - len(self._lines.get(answer.sample, b""))
        self._lines[answer.sample] = line
        if self._copy is not None:
            self._copy.waiting.append(answer.sample)
        self._unwritten.append(answer.sample)
        if self._file < 0:
            self._open()
        self._write_some()

    def forget(self, samples: Sequence[int]) -> None:
        for sample in samples:
            self._live_bytes -= len(self._lines.pop(sample, b""))
        if not self._lines:
            self._empty()
        elif self._copy is not None:
            self._continue_copy()
        elif self._bytes > max(self._copy_above_bytes, 2 * self._live_bytes):
            self._copy = _Copy(self._path, deque(self._lines))
            self._continue_copy()

    def close(self) -> None:
        self._end_copy()
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _open(self) -> None:
        """Open the file for appending."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._bytes = os.fstat(self._file).st_size
        if self._bytes:
            self._cut = os.pread(self._file, 1, self._bytes - 1) != b"\n"

    def _write_some(self) -> None:
        """Append the newest answer, and before it those that a full disk kept from the file."""
        size = 0
        while self._unwritten and size < COPY_BYTES:
            line = self._lines.get(self._unwritten[0])
            if line is not None:
                self._append(line)
                size += len(line)
            self._unwritten.popleft()

    def _append(self, line: bytes) -> None:
        # A line break ends a line that a full disk has truncated.
        data = b"\n" + line if self._cut else line
        self._cut = True
        written = os.write(self._file, data)
        self._bytes += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._cut = False

    def _empty(self) -> None:
        """Truncate the file, which needs no room."""
        self._end_copy()
        self._unwritten.clear()
        self._copy_above_bytes = COMPACT_BYTES
        if self._bytes:
            os.ftruncate(self._file, 0)
            self._bytes, self._cut = 0, False

    # ----------------------------------------------------------------- compaction

    def _continue_copy(self) -> None:
        """Copy some pending answers to the new file; use it once it holds all of them."""
        copy = self._copy
        if copy is None:
            return
        try:
            if copy.write_some(self._lines):
                return
            os.replace(copy.path, self._path)
        except OSError:
            self._end_copy()
            # The disk has no room for a copy: not tried again before as much has become dead again.
            self._copy_above_bytes = self._bytes + COMPACT_BYTES
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._bytes, self._cut = copy.file, copy.bytes, False
        self._copy, self._copy_above_bytes = None, COMPACT_BYTES
        self._unwritten.clear()  # the copy holds them, too

    def _end_copy(self) -> None:
        if self._copy is not None:
            os.close(self._copy.file)
            with contextlib.suppress(OSError):
                self._copy.path.unlink()
            self._copy = None


def _refuse(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot keep answers in {path}: {error}; give a writable --state directory")


class _Copy:
    """A new file that is being written with the pending answers."""

    def __init__(self, path: Path, waiting: deque[int]) -> None:
        """waiting: samples that the new file does not hold yet."""
        self.path, self.waiting = path.with_suffix(".new"), waiting
        self.bytes = 0
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
        self.file = os.open(self.path, flags, 0o600)

    def write_some(self, lines: dict[int, bytes]) -> bool:
        """Write up to COPY_BYTES; False once all is written. OSError where the disk is full."""
        some: list[bytes] = []
        size = 0
        while self.waiting and size < COPY_BYTES:
            line = lines.get(self.waiting.popleft())
            if line is not None:
                some.append(line)
                size += len(line)
        data = b"".join(some)
        written = os.write(self.file, data) if data else 0
        self.bytes += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return bool(self.waiting)
