"""Functions that a machine has called in the thread for slow work, really and in virtual time."""

from __future__ import annotations

from queue import Queue
from typing import Any

import numpy as np
import pytest

from ddnn.protocol.machine import Call, Connected, Returned
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Costs
from ddnn.runtime.sections import SectionRunner
from ddnn.runtime.simulation import Simulation


def fail() -> None:
    raise MemoryError("no memory left")


@pytest.mark.parametrize("lent", [False, True])
def test_calls_run_in_order_and_deliver_what_they_return(lent: bool) -> None:
    delivered: Queue[Any] = Queue()
    runner = SectionRunner({}, None, delivered.put)
    values: list[int] = []
    for n in range(5):
        runner.call(Call(("job", n), lambda n=n: values.append(n) or n, lent))
    runner.call(Call(("job", 5), fail, lent))
    returned = [delivered.get(timeout=10) for _ in range(6)]
    runner.close()
    assert values == [0, 1, 2, 3, 4]
    assert [one.job for one in returned] == [("job", n) for n in range(6)]
    assert [one.value for one in returned] == [0, 1, 2, 3, 4, None]
    assert all(one.took_s >= 0 for one in returned)
    assert returned[5].error == "MemoryError: no memory left"
    assert returned[0].error == ""


class Caller:
    """Has two functions called when it is connected, and keeps what comes back."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.returned: list[tuple[float, Returned]] = []

    def handle(self, event, now):
        if isinstance(event, Returned):
            self.returned.append((now.monotonic_s, event))
        return [Call("a", lambda: 7), Call("b", fail)] if isinstance(event, Connected) else []

    def deadline_s(self) -> None:
        return None

    def subscriptions(self) -> list[str]:
        return []


def test_in_virtual_time_calls_take_what_their_jobs_cost() -> None:
    simulation, caller = Simulation(np.random.default_rng(1)), Caller()
    costs = Costs(find_call_s=lambda job: {"a": 2.0, "b": 3.0}[job])
    simulation.add(Identity("home", "n1", "worker", "", ""), lambda pending: caller, costs=costs)
    simulation.run(10.0)
    (first_s, a), (second_s, b) = caller.returned
    assert second_s - first_s == pytest.approx(3.0)
    assert (a.value, a.took_s, a.error) == (7, 2.0, "")
    assert (b.value, b.took_s, b.error) == (None, 3.0, "MemoryError: no memory left")
