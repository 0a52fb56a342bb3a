"""Signals that end a program which has started other processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupt_once(numbers: Sequence[signal.Signals] = ENDING) -> Iterator[None]:
    """Let the first of these signals raise KeyboardInterrupt, and the later ones do nothing.

    A second one would interrupt the end that the first one has begun, and leave processes behind.
    """
    is_ending = False

    def interrupt(*_: object) -> None:
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
