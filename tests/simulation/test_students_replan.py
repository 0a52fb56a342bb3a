"""Workers that join or leave for good: the students are placed again, without a restart."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ddnn.protocol.machine import (
    Captured,
)
from tests.simulation.offload_site import PLAN
from tests.simulation.small_student_site import (
    SENT_S,
    Small,
    make_inputs,
    site,
)
from tests.simulation.students import StudentSite

TERM_S = 6.0


class Replanned(Small):
    """An edge that places the students again when workers have joined or left for good."""

    def __init__(self, of: StudentSite) -> None:
        super().__init__(of, replan_after_s=TERM_S)
        for name in of.workers:
            self.simulation.node(f"home/{name}").plans[PLAN] = of.plan
        self.plans: list[str] = []  # in use, each second

    def run_for(self, seconds: int) -> None:
        """With a sample each second, and without a look at the results."""
        for second in range(seconds):
            frame = Captured(second, 0.0, make_inputs(second))
            self.simulation.at(
                SENT_S + second,
                lambda frame=frame: self.simulation.capture(self.edge, frame),
            )
            self.simulation.at(SENT_S + second, lambda: self.plans.append(self.state.plan))
        self.simulation.run(SENT_S + seconds + 1)
        assert self.simulation.failures == []

    @property
    def groups(self) -> list[list[str]]:
        """The workers that are assigned each student."""
        workers = self.state.workers
        return [
            [name for name, worker in workers.items() if worker.pieces == [group]]
            for group in range(len(self.site.members))
        ]


def test_a_group_that_left_for_good_gets_members_of_the_others_without_a_restart() -> None:
    small = Replanned(site(3, 3, 2))
    small.schedule(5.5, "crash", ["worker7", "worker8"])
    small.run_for(24)
    assert small.plans[0] == PLAN
    assert small.plans[-1] == f"{PLAN}-1"
    switched = small.plans.index(f"{PLAN}-1")
    assert TERM_S <= switched + SENT_S - 5.5 <= TERM_S + 3
    for sample in range(24):
        lost = 4 <= sample < switched
        small.assert_result(sample, (0, 1) if lost else range(3))
    assert [len(names) for names in small.groups] == [2, 2, 2]
    assert small.state.computed_here == small.state.given_up == 0
    assert "probability 0.97" in small.state.description, "0.99 cubed: of the new groups"


def test_who_comes_back_for_good_gets_a_place_again() -> None:
    small = Replanned(site(3, 3, 2))
    small.schedule(5.5, "crash", ["worker7", "worker8"])
    small.schedule(20.0, "start", ["worker7", "worker8"])
    small.run_for(50)
    assert small.plans[-1] == f"{PLAN}-2"
    assert sorted(map(len, small.groups)) == [2, 3, 3]
    for sample in range(17, 50):
        small.assert_result(sample, range(3))


@pytest.mark.parametrize("half_period_s", [2.0, 5.0, 9.0, 15.0])
def test_a_flapping_worker_does_not_make_the_plan_oscillate(half_period_s: float) -> None:
    """Five minutes of a worker that comes and goes, alone in its group with one that is gone."""
    small = Replanned(site(3, 3, 2))
    small.schedule(5.0, "crash", ["worker8"])
    for number in range(int(300 / half_period_s)):
        what = "start" if number % 2 else "crash"
        small.schedule(20.0 + number * half_period_s, what, ["worker7"])
    small.run_for(320)
    changes = sum(a != b for a, b in pairwise(small.plans))
    assert changes <= (2 if half_period_s < TERM_S else 6)
    half = small.plans[160:]
    assert sum(a != b for a, b in pairwise(half)) <= 1, "it settles"
