"""However many signals come, the processes that a program started end with it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ddnn.runtime.interrupts import ENDING, interrupt_once


@pytest.fixture(autouse=True)
def handle_hangup() -> Iterator[None]:
    """As from a terminal: under nohup a hangup is ignored, and stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("second", ENDING)
@pytest.mark.parametrize("first", ENDING)
def test_only_the_first_signal_interrupts(first: signal.Signals, second: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in ENDING]
    done: list[str] = []

    def end() -> None:
        signal.raise_signal(second)
        done.append("watcher")
        signal.raise_signal(first)
        done.append("fleet")

    with interrupt_once():
        try:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(first)
        finally:
            end()
    assert done == ["watcher", "fleet"]
    assert [signal.getsignal(number) for number in ENDING] == before
