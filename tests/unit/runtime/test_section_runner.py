"""A section runs in one thread at a time, and what is unloaded while it is loaded stays away."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from ddnn.protocol.machine import Compute, Computed, Loaded
from ddnn.runtime.sections import INLINE_S, Ready, SectionRunner

IN_TIME_S = 20.0


class SharedSection:
    """A slow section that notices when two threads run it at once."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.calls: list[str] = []

    def example(self) -> dict[str, Any]:
        return {"x": np.zeros(1)}

    def __call__(self, inputs: Any) -> dict[str, Any]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.calls.append(threading.current_thread().name)
        time.sleep(2 * INLINE_S)
        self.running -= 1
        return {}


class Results:
    """What threads deliver."""

    def __init__(self) -> None:
        self.delivered: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, result: Any) -> None:
        with self._changed:
            self.delivered.append(result)
            self._changed.notify_all()

    def wait_for(self, kind: type, count: int) -> list[Any]:
        def find() -> list[Any]:
            return [result for result in self.delivered if isinstance(result, kind)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(find()) >= count, IN_TIME_S)
            return find()


@pytest.mark.parametrize("lent", [False, True])
def test_a_section_that_was_loaded_runs_in_one_thread_at_a_time(lent: bool) -> None:
    section, results = SharedSection(), Results()
    runner = SectionRunner({}, lambda name: section, results)
    runner.load("s")
    assert runner.add(results.wait_for(Ready, 1)[0]) == Loaded("s", True)
    runner.inferred_s = None  # it was tried when it was loaded
    for number in range(10):
        runner.run_idle_sections(0.0)
        runner.compute(Compute(("work", number), "s", {"x": np.ones(1)}, lent=lent))
    results.wait_for(Computed, 10)
    runner.close()
    assert section.most == 1
    assert any(name.startswith("lent") is lent for name in section.calls)


def test_a_section_that_is_unloaded_while_it_is_loaded_stays_away() -> None:
    results = Results()
    runner = SectionRunner({}, lambda name: SharedSection(), results)
    runner.load("s")
    runner.unload("s")
    assert runner.add(results.wait_for(Ready, 1)[0]) == Loaded("s", False)
    failed = runner.compute(Compute(("work", 1), "s", {"x": np.ones(1)}))
    assert failed == Computed(("work", 1), None)
    runner.load("s")
    assert runner.add(results.wait_for(Ready, 2)[1]) == Loaded("s", True)
    runner.close()
