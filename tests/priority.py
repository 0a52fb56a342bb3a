"""Tests whose answers are due by a deadline, among tests that run several at a time.

A test marked `priority` judges answers of real processes by their deadlines. These tests run one
after the other, in the worker of pytest-xdist that takes the first test of a run. A worker that
runs any other test yields the processor to them, and so does each process that it starts: most of
the time of a site of processes is waiting, and the other tests use it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

GROUP = "priority"
NICENESS = 19  # of the others: they have what processes with priority leave
SESSIONS_S = 0.3  # time between two looks for new sessions
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


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
        yield_processor()
    return (yield)


def yield_processor() -> None:
    """Give this process, and those that it starts, a small share of the processor.

    Where Linux shares the processor by sessions first (autogroups, see sched(7)), niceness counts
    within a session only. There this process becomes a session, and a thread lowers the share of
    each session that its descendants make.
    """
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    if AUTOGROUP.exists() and AUTOGROUP.read_text().strip() == "1":
        with contextlib.suppress(PermissionError):  # it leads a process group already
            os.setsid()
            threading.Thread(target=lower_sessions, daemon=True).start()


def lower_sessions() -> None:
    """Lower the share of this session and of those of all descendants, as they come."""
    this = psutil.Process()
    lowered: set[int] = set()
    while True:
        for process in (this, *this.children(recursive=True)):
            with contextlib.suppress(OSError):  # it has ended, or Linux wants a pause
                if (session := os.getsid(process.pid)) not in lowered:
                    Path(f"/proc/{process.pid}/autogroup").write_text(f"{NICENESS}")
                    lowered.add(session)
        time.sleep(SESSIONS_S)
