"""Tests that judge answers by their deadlines, among tests that run several at a time.

A test marked `timed` judges answers of real processes by their deadlines, so it needs part of the
machine for itself. Such tests come last: none begins before all other tests have ended. As many run
at a time as the machine has cores, and one more while these leave much of it idle, since such tests
mostly wait.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import psutil
import pytest

MARK = "timed"
WAIT_S = 0.05  # between two looks whether a core is free
LOOK_S = 2.0  # so long the processor is watched for one more test
IDLE_PERCENT = 35.0  # of all cores, so that one more test finds room
# The timed ones that take longest come first, so that all cores end at about the same time.
LONGEST = (
    "tests/integration/test_benchmarks.py",
    "tests/e2e/test_offload.py",
    "tests/e2e/test_faults.py",
    "tests/e2e/test_rollout.py",
    "tests/integration/test_cameras.py",
    "tests/e2e/test_students.py",
    "tests/deployment/test_site.py",
    "tests/e2e/test_dashboard.py",
    "tests/e2e/test_equality.py",
)


def is_timed(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None


def ends_turn(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Whether a worker's turn is over after this test: fixtures of a module run until its end."""
    if following is None:
        return True
    if is_timed(item):
        return item.location[0] != following.location[0]
    return is_timed(following)


def mix_files(files: Iterable[str]) -> list[str]:
    """Files in the order in which they run: some of tests/unit and tests/simulation, which compute,
    beside some of the others, which wait. tests/unit/training takes longest and comes first."""
    kinds: tuple[list[str], list[str]] = ([], [])
    for file in sorted(files, reverse=True):
        computes = file.startswith(("tests/unit", "tests/simulation"))
        kinds[0 if computes else 1].append(file)
    ranks = {file: rank / len(kind) for kind in kinds for rank, file in enumerate(kind)}
    return sorted(ranks, key=ranks.__getitem__)


class Turns:
    """Whose turn it is. Held by a worker for tests in a row, until `leave`.

    Untimed tests of all workers run beside each other; timed ones wait for their end, and each
    holds one of as many locks as there are cores, or the spare one.
    """

    def __init__(self, directory: Path, cores: int) -> None:
        self._untimed, self._next = directory / "untimed", directory / "next"
        self._cores = [directory / f"core-{core}" for core in range(cores)]
        self._spare = directory / "spare"
        self._held = ExitStack()
        self._is_held = False

    def take(self, *, timed: bool) -> None:
        if self._is_held:
            return
        if timed:
            with self._untimed.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._take_core()
        else:
            lock = self._held.enter_context(self._untimed.open("w"))
            fcntl.flock(lock, fcntl.LOCK_SH)
        self._is_held = True

    def leave(self) -> None:
        self._held.close()
        self._is_held = False

    def _take_core(self) -> None:
        locks: list[IO[str]] = [self._held.enter_context(core.open("w")) for core in self._cores]
        spare = self._held.enter_context(self._spare.open("w"))
        turn = self._held.enter_context(self._next.open("w"))
        fcntl.flock(turn, fcntl.LOCK_EX)  # one worker looks, the others wait behind it
        psutil.cpu_percent()
        looked_s = time.monotonic()
        while not any(map(_try_lock, locks)):
            time.sleep(WAIT_S)
            if time.monotonic() - looked_s >= LOOK_S:
                if psutil.cpu_percent() <= 100 - IDLE_PERCENT and _try_lock(spare):
                    break
                looked_s = time.monotonic()
        fcntl.flock(turn, fcntl.LOCK_UN)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class TimedTests:
    """The plugin of each worker of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        shared = Path(config.getoption("basetemp")).parent  # the same for all workers of a run
        self._turns = Turns(shared, len(os.sched_getaffinity(0)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Make a group of the tests of each file, so that fixtures of modules are made once."""
        order = {file: rank for rank, file in enumerate(mix_files({i.location[0] for i in items}))}

        def rank(item: pytest.Item) -> tuple[bool, int, int]:
            file, timed = item.location[0], is_timed(item)
            place = LONGEST.index(file) if timed and file in LONGEST else len(LONGEST)
            return timed, place, order[file]

        items.sort(key=rank)
        for item in items:
            group = f"{MARK}:{item.location[0]}" if is_timed(item) else item.location[0]
            item.add_marker(pytest.mark.xdist_group(group))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Waiting for a turn is not part of the test's time."""
        self._turns.take(timed=is_timed(item))
        try:
            return (yield)
        finally:
            if ends_turn(item, nextitem):
                self._turns.leave()
