"""The memory of a gatherer and its work per message are bounded, whatever arrives."""

from __future__ import annotations

import pytest

from ddnn.core.plan import MAX_PIECES
from ddnn.machines import placement, workers
from ddnn.machines.gather import Gather
from ddnn.machines.placement import SETTLE_S
from ddnn.protocol.machine import Tick
from tests.unit.machines.gather_group import TIMEOUT_S, Group, make_group_with_spares, name_outcomes


def test_assignments_stay_within_the_bound_of_a_message(monkeypatch) -> None:
    monkeypatch.setattr(placement, "MAX_PIECES", 5)
    group = Group()
    for i in range(4):
        group.announce(f"x{i}")
        group.offer(f"x{i}")
        group.announce(f"w{i}", "lost")
    group.wait(SETTLE_S)
    assert len(group.assigned[-1]) == 5


def count_entries(machine: Gather) -> int:
    pool, jobs = machine.pool, machine._collector._jobs
    books = vars(machine), vars(pool), vars(pool._membership), vars(jobs)
    return sum(len(v) for book in books for v in book.values() if hasattr(v, "__len__"))


def test_a_flood_of_strangers_takes_bounded_memory_and_excludes_no_planned_worker() -> None:
    group = Group(online=False)
    for n in range(3 * workers.MAX_NODES):
        group.announce(f"a{n}", "lost", session=n)
        group.announce(f"b{n}", "online", session=n)
        group.offer(f"b{n}")
        group.offer(f"c{n}", plan="00000000")
        group.report(n, 0, f"d{n}")
    assert len(group.machine.pool._sessions) <= workers.MAX_NODES
    assert len(group.machine.pool._membership._members) <= workers.MAX_NODES
    assert len(group.machine.pool.workers) <= workers.MAX_WORKERS
    for name, pieces in group.planned.items():
        group.announce(name)
        group.offer(name, *pieces)
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert len(group.machine.pool.states()) <= MAX_PIECES


@pytest.mark.parametrize("state", ["online", "lost"])
def test_a_flood_of_offers_excludes_no_spare(state) -> None:
    group = make_group_with_spares("x")
    group.offer("x", 0)
    group.report(group.scatter(), 0, "x")
    group.announce("w0", session=2)
    group.announce("y")
    group.offer("y")
    group.wait(SETTLE_S)
    group.offer("x")  # it has answered, and is not needed for now
    group.announce("x", "stopped")
    group.announce("w1", "lost")
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("y") == [1]  # it has not answered yet
    group.announce("x")
    group.announce("idle")
    group.offer("idle")
    for n in range(2 * workers.MAX_WORKERS):
        group.announce(f"b{n}", "online")
        group.announce(f"b{n}", state)
        group.offer(f"b{n}")
    assert {*group.planned, "x", "y"} <= group.machine.pool.workers.keys()
    assert ("idle" in group.machine.pool.workers) == (state == "lost")  # absent ones go first
    assert len(group.machine.pool.workers) == workers.MAX_WORKERS
    group.announce("spare")
    group.offer("spare")
    assert "spare" in group.machine.pool.workers
    assert len(group.machine.pool.workers) == workers.MAX_WORKERS
    group.offer("b0")  # one more of them
    assert {"spare", "x", "y"} <= group.machine.pool.workers.keys()


def test_memory_does_not_grow_with_the_number_of_tasks() -> None:
    group = Group()

    def run_tasks(tasks: int) -> int:
        for n in range(tasks):
            job = group.scatter()
            group.report_all(job, f"w{n % 2}")
            group.now_s += TIMEOUT_S
            group.handle(Tick())
            group.report(job, n % 2)
        del group.outcomes[:]
        return count_entries(group.machine)

    assert run_tasks(9000) == run_tasks(1000)  # closed jobs are remembered, so many and no more


def test_work_per_answer_does_not_grow_with_the_group() -> None:
    """A thousand answers to a task: counted in set elements looked at, not in seconds."""

    class Watched(dict):
        walks = 0

        def items(self):
            Watched.walks += 1
            return super().items()

    group = Group(1000, 990)
    group.machine.pool.workers = Watched(group.machine.pool.workers)
    job = group.scatter()
    group.report_all(job)
    assert name_outcomes(group.outcomes) == ["Enough", "Ended"]
    assert Watched.walks == 0
