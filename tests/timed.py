"""In which order and at which priority the tests run, several at a time.

A test marked `timed` judges answers of real processes by their deadlines. Other tests either wait
most of the time, for brokers, browsers and processes, or compute (tests/unit, tests/simulation).
With `-n auto` there is one worker more than cores for the tests that wait and then for the timed
ones, of which as many run at a time as the machine has cores, and one more while these leave much
of it idle. Another worker runs tests that compute: at a lower priority, so that it uses what the
others leave. What is left of its tests at the end is divided among all.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import psutil
import pytest
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

MARK = "timed"
COMPUTING = ("tests/unit/", "tests/simulation/")
NICENESS = 10  # of tests that compute; of 19, a few seconds of work may take minutes
WAIT_S = 0.05  # between two looks whether a core is free
LOOK_S = 2.0  # so long the processor is watched for one more timed test
IDLE_PERCENT = 35.0  # of all cores, so that one more finds room
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


def count_cores() -> int:
    return len(os.sched_getaffinity(0))


def count_workers() -> int:
    return count_cores() + 2  # the last one for tests that compute


def is_timed(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None


def computes(item: pytest.Item) -> bool:
    return item.location[0].startswith(COMPUTING) and not is_timed(item)


def ends_turn(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Whether a worker's turn is over after this test: fixtures of a module run until its end."""
    if following is None or computes(following) or is_timed(item) != is_timed(following):
        return True
    return is_timed(item) and item.location[0] != following.location[0]


class Scheduling(LoadGroupScheduling):  # type: ignore[misc]
    """Gives tests that compute to the last worker, and to the others when nothing else is left."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        last = node.gateway.id == f"gw{count_workers() - 1}"
        fitting = (group for group in self.workqueue if group.startswith(COMPUTING) == last)
        group = next(fitting, None)
        if group is not None:
            self.workqueue.move_to_end(group, last=False)
        elif last:  # one more site of processes would be too many for the cores
            node.shutdown()
            return
        super()._assign_work_unit(node)


class Turns:
    """Whose turn it is among the workers of a run, by locks of files in `directory`.

    No timed test begins before the tests that wait have ended. Each worker with timed tests holds
    one of as many locks as there are cores, or the spare one.
    """

    def __init__(self, directory: Path) -> None:
        self._waiting, self._next = directory / "waiting", directory / "next"
        self._cores = [directory / f"core-{core}" for core in range(count_cores())]
        self._spare = directory / "spare"
        self._held = ExitStack()
        self._is_held = False

    def take(self, *, timed: bool) -> None:
        if self._is_held:
            return
        if timed:
            with self._waiting.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._take_core()
        else:
            fcntl.flock(self._held.enter_context(self._waiting.open("w")), fcntl.LOCK_SH)
        self._is_held = True

    def leave(self) -> None:
        self._held.close()
        self._is_held = False

    def _take_core(self) -> None:
        locks: list[IO[str]] = [self._held.enter_context(core.open("w")) for core in self._cores]
        spare = self._held.enter_context(self._spare.open("w"))
        turn = self._held.enter_context(self._next.open("w"))
        fcntl.flock(turn, fcntl.LOCK_EX)  # one worker looks, the others wait behind it
        psutil.cpu_times_percent()
        looked_s = time.monotonic()
        while not any(map(_try_lock, locks)):
            time.sleep(WAIT_S)
            if time.monotonic() - looked_s >= LOOK_S:
                times = psutil.cpu_times_percent()
                if times.idle + times.nice >= IDLE_PERCENT and _try_lock(spare):
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
        self._turns = Turns(shared)
        self._is_nice = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Make a group of the tests of each file, so that fixtures of modules are made once."""

        def rank(item: pytest.Item) -> tuple[bool, int]:
            timed, file = is_timed(item), item.location[0]
            return timed, LONGEST.index(file) if timed and file in LONGEST else len(LONGEST)

        # Backwards, since tests/unit/training and tests/integration take longest.
        items.sort(key=lambda item: item.location[0], reverse=True)
        items.sort(key=rank)
        for item in items:
            group = f"{MARK}:{item.location[0]}" if is_timed(item) else item.location[0]
            item.add_marker(pytest.mark.xdist_group(group))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Waiting for a turn is not part of the test's time."""
        if not computes(item):
            self._turns.take(timed=is_timed(item))
        elif not self._is_nice:
            os.nice(NICENESS)  # for good: tests that compute are the last of a worker
            self._is_nice = True
        try:
            return (yield)
        finally:
            if ends_turn(item, nextitem):
                self._turns.leave()
