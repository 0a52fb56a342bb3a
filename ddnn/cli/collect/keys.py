"""Single keys of the terminal, without Enter."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ReadKey = Callable[[], str]


@contextmanager
def open_keyboard() -> Iterator[ReadKey]:
    """Yield a function that returns the key that was pressed, "" without one."""
    if not sys.stdin.isatty():
        yield lambda: ""
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def read() -> str:
        ready, _, _ = select.select([file], [], [], 0)
        return os.read(file, 1).decode(errors="ignore") if ready else ""

    try:
        tty.setcbreak(file)
        yield read
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
