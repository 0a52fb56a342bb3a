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

    # Under nohup a lost terminal ends nothing. An ignored SIGINT is only that of a shell which
    # starts programs in the background.
    taken = [n for n in numbers if (n, signal.getsignal(n)) != (signal.SIGHUP, signal.SIG_IGN)]
    before = [signal.signal(number, interrupt) for number in taken]
    try:
        yield
    finally:
        for number, handler in zip(taken, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
