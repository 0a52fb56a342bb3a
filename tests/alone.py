"""Tests that need the machine for themselves, among tests that run several at a time.

A test marked `alone` judges answers of real processes by their deadlines. All of these run in one
worker of pytest-xdist, and only once every other worker has ended: each worker of a run holds the
run's lock shared from its start to its end, and the first test that is marked takes it exclusively.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

GROUP = "alone"
WAIT_S = 1800.0  # as long as the other workers may take
POLL_S = 0.05


class RunLock:
    """A lock of the workers of one run, shared or exclusive, that ends with its process."""

    def __init__(self) -> None:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
        self._path = Path(tempfile.gettempdir()) / f"ddnn-tests-{run}.lock"
        self._file = self._path.open("a")
        self.exclusive = False

    def take(self, *, exclusive: bool, wait_s: float = WAIT_S) -> None:
        """Wait for the lock. TimeoutError after `wait_s`."""
        self.give_back()
        until_s = time.monotonic() + wait_s
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        while True:
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise TimeoutError(f"{self._path} is held for over {wait_s:g} s") from None
                time.sleep(POLL_S)
            else:
                self.exclusive = exclusive
                return

    def give_back(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self.exclusive = False

    def remove(self) -> None:
        """Give the lock back; the last of the run removes its file."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink(missing_ok=True)
        self.give_back()  # one that waits has the same file open


class Alone:
    """The pytest plugin; tests/conftest.py registers it."""

    def __init__(self, lock: RunLock) -> None:
        self._lock = lock

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """One group per file, so that fixtures of modules are made once; one group for all tests
        that are marked, at the end."""
        for item in items:
            alone = item.get_closest_marker(GROUP) is not None
            item.add_marker(pytest.mark.xdist_group(GROUP if alone else str(item.path)))
        items.sort(key=lambda item: item.get_closest_marker(GROUP) is not None)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Outside the test's own timeout: waiting for others is not the test's time."""
        if item.get_closest_marker(GROUP) is not None and not self._lock.exclusive:
            self._lock.take(exclusive=True)
        return (yield)

    def pytest_sessionfinish(self) -> None:
        self._lock.remove()
