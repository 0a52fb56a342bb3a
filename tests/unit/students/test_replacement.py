"""Students placed on other devices while they run."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import Plan
from ddnn.machines.availability import Observed
from ddnn.machines.replan import Candidate
from ddnn.students.detail import read_detail
from ddnn.students.replacement import replan
from tests.simulation.students import StudentSite

UNSEEN = Observed(0.0, 0.0)


def make_plan(groups: tuple[int, ...] = (3, 3, 2), p_th: float = 0.02, **speeds: float) -> Plan:
    site = StudentSite(groups)
    devices = [
        DeviceProfile(name, speeds.get(name, 1e9), 10**6, outage_probability=0.1)
        for name in site.workers
    ]
    detail = msgspec.structs.replace(site.detail, p_th=p_th, devices=devices)
    return msgspec.structs.replace(site.plan, detail=msgspec.to_builtins(detail))


def list_candidates(
    plan: Plan, without: tuple[str, ...] = (), **more: DeviceProfile | None
) -> list[Candidate]:
    names = [name for name in plan.placement if name not in without]
    return [
        *(Candidate(name, None, UNSEEN) for name in names),
        *(Candidate(name, profile, UNSEEN) for name, profile in more.items()),
    ]


def sizes(plan: Plan) -> list[int]:
    held = [pieces[0] for pieces in plan.placement.values()]
    return [held.count(group) for group in range(len(plan.pieces))]


def test_nobody_moves_while_the_bound_is_met() -> None:
    plan = make_plan()
    assert replan(plan, list_candidates(plan)) is None
    assert replan(plan, list_candidates(plan, ("worker1",))) is None, "two are left in its group"


def test_a_group_that_is_gone_gets_members_of_others() -> None:
    plan = make_plan()
    made = replan(plan, list_candidates(plan, ("worker7", "worker8")))
    assert made is not None
    assert sizes(made) == [2, 2, 2]
    moved = [name for name, held in made.placement.items() if held != plan.placement[name]]
    assert len(moved) == 2
    detail = read_detail(made)
    assert detail.outage == pytest.approx([0.01] * 3)
    assert detail.devices == read_detail(plan).devices, "those that left may come back"
    assert detail.filters == read_detail(plan).filters


def test_as_little_above_the_bound_as_the_devices_allow() -> None:
    """Of four groups with seven members one has one: there is no better place for anybody."""
    plan = make_plan((2, 2, 2, 2))
    assert replan(plan, list_candidates(plan, ("worker3",))) is None
    both = replan(plan, list_candidates(plan, ("worker3", "worker4")))
    assert both is not None
    assert sorted(sizes(both)) == [1, 1, 2, 2]
    assert replan(plan, list_candidates(plan, tuple(plan.placement)[3:])) is None, "too few"


def test_a_new_device_joins_the_group_that_needs_it() -> None:
    plan = make_plan()
    profile = DeviceProfile("pi9", 5e10, 10**6)
    weak = make_plan((3, 3, 1))
    made = replan(weak, list_candidates(weak, pi9=profile))
    assert made is not None
    assert made.placement["pi9"] == (2,)
    joined = replan(plan, list_candidates(plan, pi9=profile))
    assert joined is not None
    assert {n: h for n, h in joined.placement.items() if n != "pi9"} == plan.placement
    small = DeviceProfile("pi9", 5e10, 100)
    assert replan(plan, list_candidates(plan, pi9=small)) is None, "no memory for any student"


def test_announced_speeds_are_brought_to_the_scale_of_the_plan() -> None:
    """The plan's 1e9 may be a ratio only: what its devices announce says what it is worth."""
    plan = make_plan()
    candidates = [Candidate(name, DeviceProfile(name, 2e10), UNSEEN) for name in plan.placement]
    candidates.append(Candidate("pi9", DeviceProfile("pi9", 4e10), UNSEEN))
    made = replan(plan, candidates)
    assert made is not None
    speeds = {device.name: device.flops_per_s for device in read_detail(made).devices}
    assert speeds["pi9"] == pytest.approx(2e9)
    assert speeds["worker1"] == 1e9


def test_observed_outages_count() -> None:
    """Two that are mostly away do not make a group that meets the bound."""
    plan = make_plan()
    often_away = {"worker7": Observed(0.5, 1e6), "worker8": Observed(0.5, 1e6)}
    candidates = [Candidate(name, None, often_away.get(name, UNSEEN)) for name in plan.placement]
    made = replan(plan, candidates)
    assert made is not None
    assert max(read_detail(made).outage) < 0.06 < 0.25
    assert {device.outage_probability for device in read_detail(made).devices} == {0.1}, (
        "what was observed is not counted twice"
    )
    again = replan(made, candidates)
    assert again is None, "what was placed stays placed"


@pytest.mark.parametrize("seed", range(20))
def test_planning_anew_twice_changes_nothing(seed: int) -> None:
    """Whoever leaves: the second time the placement is as good as the first made it."""
    generator = np.random.default_rng(seed)
    names = [f"worker{i}" for i in range(1, 9)]
    speeds: dict[str, Any] = {name: float(generator.uniform(1e9, 6e9)) for name in names}
    plan = make_plan(**speeds)
    gone = tuple(generator.choice(names, int(generator.integers(1, 4)), replace=False).tolist())
    candidates = list_candidates(plan, gone)
    made = replan(plan, candidates)
    if made is not None:
        assert replan(made, candidates) is None
        assert min(sizes(made)) >= 1


def test_a_plan_that_names_no_devices_can_be_placed_anew() -> None:
    site = StudentSite((3, 3, 2))
    candidates = list_candidates(site.plan, ("worker7", "worker8"))
    made = replan(site.plan, candidates)
    assert made is not None
    assert min(sizes(made)) >= 1
    assert read_detail(made).guaranteed_latency_s == site.detail.guaranteed_latency_s
