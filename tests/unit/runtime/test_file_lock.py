"""The lock that processes wait for, on a clock of the test."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

import pytest

from ddnn.runtime.file_lock import lock_file


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The sleeps, which are the only time that passes."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    return slept


def test_a_lock_that_is_held_is_waited_for_until_the_deadline(
    tmp_path: Path, slept: list[float]
) -> None:
    path = tmp_path / "lock"
    with lock_file(path, 0.0), pytest.raises(TimeoutError, match="over 2 s"), lock_file(path, 2.0):
        pytest.fail("two have the lock")
    assert sum(slept) == pytest.approx(2.0, abs=0.1)


def test_who_waits_gets_the_lock_once_it_is_free(
    tmp_path: Path, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if sum(slept) > 1.0:
                fcntl.flock(other, fcntl.LOCK_UN)

        monkeypatch.setattr(time, "sleep", sleep)
        with lock_file(path, 2.0), pytest.raises(TimeoutError), lock_file(path, 0.0):
            pytest.fail("two have the lock")
    with lock_file(path, 0.0):  # free again
        pass
