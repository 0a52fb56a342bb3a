"""A lock file that processes of one machine wait for, with a deadline."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.05


@contextmanager
def lock_file(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing.

    Raises TimeoutError where another process holds it for longer than `wait_s`, OSError where the
    file cannot be opened.
    """
    until_s = time.monotonic() + wait_s
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    text = f"another process holds it for over {wait_s:g} s"
                    raise TimeoutError(None, text, str(path)) from None
                time.sleep(POLL_S)
        yield
