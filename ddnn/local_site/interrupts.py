"""Signals that end a command: with every process that it started, or with what it has so far."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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


class Interrupt:
    """Whether the user has asked to end; the next Ctrl-C before `read` is a KeyboardInterrupt."""

    def __init__(self) -> None:
        self._asked = False

    def read(self) -> bool:
        """Whether the user has asked since the last call."""
        asked, self._asked = self._asked, False
        return asked

    def ask(self, *_: object) -> None:
        """Take a signal."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        print_note("ending the training with the weights so far; Ctrl-C again aborts")


@contextmanager
def open_interrupt(active: bool) -> Iterator[Interrupt]:
    """Take the first SIGINT while the block runs, where `active` and in the main thread."""
    interrupt = Interrupt()
    if not active or threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.signal(signal.SIGINT, interrupt.ask)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
