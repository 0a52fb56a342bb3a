"""Tests that need the machine for themselves, among tests that run several at a time.

A test marked `alone` judges answers of real processes by their deadlines. Such tests come last, one
after the other, and none begins before the tests of the other workers of pytest-xdist have ended.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from pathlib import Path

import pytest

GROUP = "alone"
LOCK = Path(__file__)  # any file that all workers can open


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker(GROUP) is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make one group of the tests that run alone, the last, and one of each other file, so that
    fixtures of modules are made once. The files come in reverse order: tests/unit/training, which
    takes longest, comes first."""
    for item in items:
        group = GROUP if is_alone(item) else item.location[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.location[0], reverse=True)
    items.sort(key=is_alone)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hold the lock, alone or with others; waiting for it is not part of the test's time."""
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if is_alone(item) else fcntl.LOCK_SH)
        return (yield)
