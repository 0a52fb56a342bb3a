"""In which order and at which priority the tests run, several at a time.

A test marked `timed` judges answers of real processes by their deadlines. Other tests either wait
most of the time, for brokers, browsers and processes, or compute (tests/unit, tests/simulation).
With `-n auto` there are as many workers as cores for the tests that wait and then for the timed
ones, and one more for those that compute: at a lower priority, so that it uses what the others
leave idle. What is left of its tests at the end is divided among all.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]

MARK = "timed"
COMPUTING = ("tests/unit/", "tests/simulation/")
NICENESS = 10  # of tests that compute; of 19, a few seconds of work may take minutes
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


def is_timed(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None


def computes(item: pytest.Item) -> bool:
    return item.location[0].startswith(COMPUTING) and not is_timed(item)


def waits(item: pytest.Item) -> bool:
    return not computes(item) and not is_timed(item)


class Scheduling(LoadGroupScheduling):  # type: ignore[misc]
    """Gives tests that compute to the last worker, and to the others when nothing else is left."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        last = node.gateway.id == f"gw{count_cores()}"
        fitting = (group for group in self.workqueue if group.startswith(COMPUTING) == last)
        group = next(fitting, None)
        if group is not None:
            self.workqueue.move_to_end(group, last=False)
        elif last:  # a third site of processes would be too many for two cores
            node.shutdown()
            return
        super()._assign_work_unit(node)


class TimedTests:
    """The plugin of each worker of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        shared = Path(config.getoption("basetemp")).parent  # the same for all workers of a run
        self._waiting = (shared / "waiting").open("w")
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
        """Begin no timed test before the tests that wait have ended in all workers."""
        if waits(item):
            fcntl.flock(self._waiting, fcntl.LOCK_SH)
        elif is_timed(item):
            fcntl.flock(self._waiting, fcntl.LOCK_EX)
            fcntl.flock(self._waiting, fcntl.LOCK_UN)
        elif not self._is_nice:
            os.nice(NICENESS)  # for good: tests that compute are the last of a worker
            self._is_nice = True
        try:
            return (yield)
        finally:
            if nextitem is None or not waits(nextitem):
                fcntl.flock(self._waiting, fcntl.LOCK_UN)
