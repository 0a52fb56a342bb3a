"""A site changes to another plan while samples arrive: none is lost, late or mixed of both plans.

"Equal" means equal to a site without workers. A decoding that mixed pieces of two plans, whose
codes and numbers of pieces differ, would not be.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from ddnn.coding.constructions import make_mds, make_parity
from ddnn.core.plan import PieceKey
from ddnn.core.section import Section
from ddnn.protocol.machine import PlanRead
from tests.simulation.offload_checks import START_S, assert_equal, assert_in_time
from tests.simulation.offload_site import EDGE, JITTER, CodedSite, OffloadSite, Run
from tests.simulation.scenario import PERIOD_S

NEW = "ef56ab78"
SAMPLES = 60
SWITCH_S = START_S + 15 * PERIOD_S


def start_site() -> tuple[Run, OffloadSite, dict]:
    """Start a site with two plans on every disk: one of six pieces and one of five, of which four
    suffice; return it with the answers of a site without workers."""
    old = CodedSite(make_mds(6, 2))
    new = CodedSite(make_parity(5), plan_id=NEW)
    old.sections |= {
        key: section for key, section in new.sections.items() if key not in old.sections
    }
    old.shards |= new.shards
    expected = {
        sample: answer
        for (_, sample), answer in old.run_without_workers(SAMPLES).simulation.store.items()
    }
    run = old.make_run(samples=SAMPLES, network=JITTER)
    for name in old.workers:
        run.simulation.node(f"home/{name}").plans = {NEW: new.plan}
    return run, new, expected


def find_plan(run: Run, new: OffloadSite) -> None:
    run.simulation.node(f"home/{EDGE}").take(PlanRead(NEW, new.plan))


@pytest.mark.parametrize(
    "kills",
    [
        {},
        {0.0: ("worker1",)},
        {0.05: ("worker1", "worker2")},
        {0.25: ("worker2",), 0.31: ("worker5",)},
        {0.2 + 0.01 * i: (f"worker{i}",) for i in range(1, 3)},
    ],
    ids=str,
)
def test_each_sample_is_answered_by_exactly_one_of_two_plans(kills) -> None:
    run, new, expected = start_site()
    run.simulation.at(SWITCH_S, partial(find_plan, run, new))
    for after_s, workers in kills.items():
        run.schedule(SWITCH_S + after_s, "crash", *workers)
        run.schedule(SWITCH_S + after_s + 1.0, "start", *workers)
    run.scenario.run()
    assert_equal(run, expected)
    assert_in_time(run)
    state = run.offload_state
    assert (state.plan, state.pieces, state.given_up) == (NEW, 5, 0)
    assert state.combined > 0


def test_all_nodes_switch_at_one_sample_and_free_the_old_plan() -> None:
    run, new, expected = start_site()
    node, heads = run.simulation.node(f"home/{EDGE}"), []

    def record(plan: str, section: Section) -> Any:
        def call(inputs):
            heads.append(plan)
            return section(inputs)

        return call

    keys = [PieceKey(run.site.plan.id, "head"), PieceKey(NEW, "head")]
    node.sections |= {key: record(key.plan, node.sections[key]) for key in keys}
    run.simulation.at(SWITCH_S, partial(find_plan, run, new))
    run.scenario.run()
    assert_equal(run, expected)
    texts = [log.message % tuple(log.arguments) for _, _, log in run.simulation.journal.logs]
    assert [text for text in texts if text == f"plan {NEW} is in use"] == [f"plan {NEW} is in use"]
    edge = run.machine(EDGE)
    assert list(edge._versions.live) == [NEW]
    for name in run.site.workers:
        assert list(run.machine(name)._holdings) == [NEW]
    # From the first head of the new plan on there is none of the old one.
    assert heads == sorted(heads, key=[run.site.plan.id, NEW].index)
    assert {*heads} == {run.site.plan.id, NEW}


def test_a_plan_whose_workers_never_suffice_is_not_used() -> None:
    """The workers have no copy of the new plan: the site continues with the old one."""
    run, new, expected = start_site()
    for name in run.site.workers:
        run.simulation.node(f"home/{name}").plans = {}
    run.simulation.at(SWITCH_S, partial(find_plan, run, new))
    run.scenario.run()
    assert_equal(run, expected)
    assert_in_time(run)
    assert run.offload_state.plan == run.site.plan.id
    assert run.offload_state.computed_here == 0


def test_a_plan_that_cannot_be_loaded_is_refused_and_reported() -> None:
    run, new, expected = start_site()
    node = run.simulation.node(f"home/{EDGE}")
    node.sections = {k: s for k, s in node.sections.items() if k != PieceKey(NEW, "tail")}
    run.simulation.at(SWITCH_S, partial(find_plan, run, new))
    run.scenario.run()
    assert_equal(run, expected)
    assert run.machine(EDGE).counts["plans_refused"] == 1
    assert run.offload_state.plan == run.site.plan.id


def test_the_newest_of_two_new_plans_is_used() -> None:
    run, new, expected = start_site()
    third = CodedSite(make_mds(4, 1), plan_id="0a0b0c0d")
    run.site.shards |= third.shards
    node = run.simulation.node(f"home/{EDGE}")
    node.sections = {**node.sections, **third.sections}
    for name in run.site.workers:
        worker = run.simulation.node(f"home/{name}")
        worker.plans = {NEW: new.plan, third.plan.id: third.plan}
        worker.sections = {**worker.sections, **third.shards}
    run.simulation.at(SWITCH_S, partial(find_plan, run, new))
    later = partial(node.take, PlanRead(third.plan.id, third.plan))
    run.simulation.at(SWITCH_S + 0.05, later)
    run.scenario.run()
    assert_equal(run, expected)
    assert_in_time(run)
    assert run.offload_state.plan == third.plan.id
