"""Tests whose answers are due by a deadline, among tests that run several at a time.

A test marked `priority` judges answers of real processes by their deadlines. These tests run one
after the other, in the worker of pytest-xdist that takes the first test of a run. A worker that
runs any other test yields the processor to them, and so does each process that it starts: most of
the time of a site of processes is waiting, and the other tests use it.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

GROUP = "priority"
NICENESS = 10  # of the others: about a tenth of the share of a process that has priority


def has_priority(item: pytest.Item) -> bool:
    return item.get_closest_marker(GROUP) is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make one group of the tests with priority, the first, and one of each other file, so that
    fixtures of modules are made once."""
    for item in items:
        group = GROUP if has_priority(item) else item.location[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=has_priority, reverse=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not has_priority(item) and os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    return (yield)
