"""Keeps answers on disk until the store has confirmed them: an append-only file of JSON lines.

Each answer is written before it is published, so that SIGKILL loses none. The file is emptied
whenever no answer is pending, and rewritten when it has grown. An answer that was confirmed just
before a crash may be sent again: the store is idempotent.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ddnn.errors import ConfigError
from ddnn.protocol.messages import Answer

REWRITE_BYTES = 4 << 20
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Answer)


def read_answers(path: Path) -> list[Answer]:
    """Read the answers of a log, the newest per sample; skip a line that a crash has truncated."""
    answers: dict[int, Answer] = {}
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError):
                answer = _DECODER.decode(line)
                answers[answer.sample] = answer
    return list(answers.values())


class FileAnswerLog:
    """The log of one node; only one thread may use it.

    `keep` and `forget` raise OSError where the disk fails or is full; the log stays usable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._bytes = 0
        self._cut = False  # whether the last line may be incomplete
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.pending = read_answers(path)
            self._lines = {a.sample: _ENCODER.encode(a) + b"\n" for a in self.pending}
            self._rewrite()
        except OSError as error:
            raise ConfigError(
                f"cannot keep answers in {path}: {error}; give a writable --state directory"
            ) from None

    def keep(self, answer: Answer) -> None:
        line = _ENCODER.encode(answer) + b"\n"
        self._lines[answer.sample] = line
        # A line break ends a line that a full disk has truncated.
        data = b"\n" + line if self._cut else line
        self._cut = True
        written = os.write(self._file, data)
        self._bytes += written
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._cut = False

    def forget(self, samples: Sequence[int]) -> None:
        for sample in samples:
            self._lines.pop(sample, None)
        if (not self._lines and self._bytes) or self._bytes > REWRITE_BYTES:
            self._rewrite()

    def close(self) -> None:
        os.close(self._file)

    def _rewrite(self) -> None:
        """Replace the file by one with the pending answers only."""
        fresh = self._path.with_suffix(".new")
        data = b"".join(self._lines.values())
        fresh.write_bytes(data)
        file = os.open(fresh, os.O_WRONLY | os.O_APPEND)
        try:
            fresh.replace(self._path)
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._bytes, self._cut = file, len(data), False
