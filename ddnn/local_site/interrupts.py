"""Signals that end a command: with every process that it started, or with what it has so far."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ddnn.errors import DdnnError
from ddnn.local_site.progress import print_note
from ddnn.runtime.interrupts import interrupt_once


@contextmanager
def end_on_signals(text: str) -> Iterator[None]:
    """SIGTERM and a lost terminal end the command as Ctrl-C does, however many signals come.

    text: of the DdnnError that an interrupt becomes, where the block does not handle it.
    """
    with interrupt_once():
        try:
            yield
        except KeyboardInterrupt:
            raise DdnnError(text) from None


@contextmanager
def open_interrupt(active: bool = True) -> Iterator[Callable[[], bool]]:
    """Take the first SIGINT while the block trains, where `active` and in the main thread.

    Yields a function that returns whether the user has asked to end the training. The second SIGINT
    is a KeyboardInterrupt.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print_note("ending this training with the weights so far; Ctrl-C again aborts")

    if not active or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
