"""CPUs, cores and links in virtual time: who waits for whom, by equality."""

from __future__ import annotations

from functools import partial

import pytest

from ddnn.core.device import DeviceProfile
from ddnn.runtime.lanes import Cores, Costs, Lane, Link, Urgency, VirtualTime

DEVICE = DeviceProfile(
    name="pi",
    flops_per_s=1e9,
    memory_bytes=2**20,
    uplink_bits_per_s=8000.0,
    downlink_bits_per_s=8000.0,
)


class Work:
    """Lanes on one clock, and when their work ended."""

    def __init__(self, lanes: int = 1, cores: int | None = None) -> None:
        self.time = VirtualTime()
        shared = Cores(cores)
        self.lanes = [Lane(self.time, shared) for _ in range(lanes)]
        self.ended_s: dict[str, float] = {}

    def run(
        self, name: str, seconds: float, urgency: Urgency = Urgency.MACHINE, lane: int = 0
    ) -> None:
        self.lanes[lane].run(seconds, lambda: self._end(name), urgency)

    def start_at(
        self, at_s: float, name: str, seconds: float, urgency: Urgency = Urgency.MACHINE
    ) -> None:
        self.time.at(at_s, partial(self.run, name, seconds, urgency))

    def _end(self, name: str) -> None:
        self.ended_s[name] = self.time.now_s


def test_actions_come_in_the_order_of_their_times_then_of_their_calls() -> None:
    time, seen = VirtualTime(), []
    for at_s, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "never")):
        time.at(at_s, lambda name=name: seen.append((time.now_s, name)))
    time.run(5.0)
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
    assert time.now_s == 5.0


def test_two_tasks_on_one_lane_take_the_sum() -> None:
    work = Work()
    work.run("first", 2.0)
    work.run("second", 3.0)
    work.time.run(10.0)
    assert work.ended_s == {"first": 2.0, "second": 5.0}


def test_an_idle_lane_starts_at_once_and_nothing_takes_no_time() -> None:
    work = Work()
    work.run("nothing", 0.0)
    assert work.ended_s == {"nothing": 0.0}  # before any time passes
    work.start_at(4.0, "late", 1.0)
    work.time.run(10.0)
    assert work.ended_s["late"] == 5.0


def test_nothing_waits_all_the_same_for_what_came_before() -> None:
    work = Work()
    work.run("first", 2.0)
    work.run("nothing", 0.0)
    work.time.run(10.0)
    assert work.ended_s == {"first": 2.0, "nothing": 2.0}


def test_lanes_of_their_own_do_not_wait_for_each_other() -> None:
    work = Work(lanes=2)
    work.run("one", 2.0, lane=0)
    work.run("other", 2.0, lane=1)
    work.time.run(10.0)
    assert work.ended_s == {"one": 2.0, "other": 2.0}


def test_lanes_on_fewer_cores_share_them() -> None:
    work = Work(lanes=6, cores=2)
    for lane in range(6):
        work.run(f"{lane}", 1.0, lane=lane)
    work.time.run(10.0)
    assert work.ended_s == {"0": 1.0, "1": 1.0, "2": 2.0, "3": 2.0, "4": 3.0, "5": 3.0}


def test_own_work_never_waits_for_lent_work_which_is_interrupted() -> None:
    work = Work()
    work.run("lent", 4.0, Urgency.LENT)
    work.start_at(1.0, "own", 1.0, Urgency.OWN)
    work.start_at(1.5, "message", 0.25)
    work.start_at(3.0, "second message", 0.25)
    work.time.run(10.0)
    assert work.ended_s == {"message": 1.75, "own": 2.25, "second message": 3.25, "lent": 5.5}


def test_lent_work_waits_for_everything() -> None:
    work = Work()
    work.run("own", 1.0, Urgency.OWN)
    work.run("message", 0.5)
    work.run("lent", 2.0, Urgency.LENT)
    work.run("second lent", 2.0, Urgency.LENT)
    work.time.run(10.0)
    assert work.ended_s == {"message": 0.5, "own": 1.5, "lent": 3.5, "second lent": 5.5}


@pytest.mark.parametrize("sizes", [[1000], [1000, 500], [125, 0, 250, 4000]])
def test_n_bytes_on_a_link_take_n_times_8_by_its_rate(sizes: list[int]) -> None:
    link = Link(8000.0)
    passed_s = [link.take(3.0, size) for size in sizes]
    assert passed_s == [3.0 + sum(sizes[: i + 1]) / 1000 for i in range(len(sizes))]
    assert link.take(100.0, 1000) == 101.0  # idle in between


def test_a_link_without_a_limit_takes_no_time() -> None:
    assert Link().take(2.5, 10**9) == 2.5


def test_what_a_section_takes() -> None:
    costs = Costs(section_s={"a": 0.25}, section_flops={"a": 1e9, "b": 2e9}, any_section_s=0.125)
    assert costs.find_section_s("a", DEVICE) == 0.25  # as given
    assert costs.find_section_s("b", DEVICE) == 2.0  # flops by flops/s
    assert costs.find_section_s("b", None) == 0.125  # no device is known
    assert costs.find_section_s("c", DEVICE) == 0.125


@pytest.mark.parametrize(
    ("seconds", "lent", "urgency"),
    [
        (0.001, False, Urgency.MACHINE),
        (0.001, True, Urgency.MACHINE),
        (0.1, False, Urgency.OWN),
        (0.1, True, Urgency.LENT),
    ],
)
def test_whose_thread_runs_a_section(seconds: float, lent: bool, urgency: Urgency) -> None:
    assert Urgency.of_section(seconds, lent) is urgency
