"""An edge whose section runs as redundant students, in virtual time.

As long as each group has a live member, the answers equal those of the undivided section bit for
bit, whoever answered; otherwise they come in time and name the workers whose portion they lack.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest

from ddnn.exits.timing import Timing
from ddnn.machines.worker import RETRY_S, WorkerNode
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.topics import Kind
from ddnn.runtime.identity import Identity
from tests.simulation.offload_checks import START_S, assert_in_time
from tests.simulation.offload_site import EDGE, PLAN, TIMEOUT_S, Run
from tests.simulation.small_hierarchy import BUNDLE, run_undistributed
from tests.simulation.small_student_site import (
    END_S,
    SAMPLES,
    SENT_S,
    Small,
    answer_undivided,
    site,
)
from tests.simulation.students import StudentSite


@pytest.mark.parametrize("groups", [(3, 3, 2), (1, 4, 3), (2, 2, 2, 2)], ids=str)
def test_any_set_of_live_workers(groups: tuple[int, ...]) -> None:
    """All 2^8: complete where each group has one, else filled; nobody else computes it."""
    of = site(*groups)
    workers = list(of.workers)
    assert len(workers) == 8
    for live in range(2**8):
        names = [name for i, name in enumerate(workers) if live >> i & 1]
        small = Small(of, seed=live)
        small.schedule(1.0, "crash", set(workers).difference(names))
        small.run()
        if not names:
            assert [computed.outputs for computed, _ in small.inner.results.values()] == [None] * 2
            continue
        for sample in small.inner.results:
            small.assert_result(sample, of.find_live(names))


def test_where_the_edge_can_it_computes_what_a_lost_group_would_have() -> None:
    """That is better than a section without a portion, which is therefore never used."""
    small = Small(site(3, 3, 2), compute_here=True)
    small.schedule(1.0, "crash", ["worker7", "worker8"])
    small.run(5)
    for sample in range(5):
        small.assert_result(sample, range(3))
    state = small.state
    assert (state.computed_here, state.combined, state.spare_workers) == (5, 0, 0)


def test_a_group_that_dies_while_its_task_runs_leaves_time_to_compute_here() -> None:
    small = Small(site(3, 3, 2), compute_here=True, student_s=0.06)  # the Will comes before
    small.schedule(SENT_S + 0.003, "crash", ["worker7", "worker8"])
    small.run(1)
    small.assert_result(0, range(3))
    assert small.inner.results[0][1] < SENT_S + TIMEOUT_S
    assert small.state.computed_here == 1


@pytest.mark.parametrize("compute_here", [True, False])
def test_a_group_that_stalls_is_filled_when_the_time_is_over(compute_here: bool) -> None:
    """It is still counted on for two samples; then they are computed here, or filled at once."""
    small = Small(site(3, 3, 2), compute_here=compute_here)
    small.schedule(1.9, "stall", ["worker1", "worker2", "worker3"])
    small.run(5, every_s=0.3)
    for sample in range(5):
        small.assert_result(sample, range(3) if compute_here and sample >= 2 else (1, 2))
        took_s = small.inner.results[sample][1] - SENT_S - 0.3 * sample
        assert took_s <= TIMEOUT_S + 0.01
        assert (took_s > TIMEOUT_S - 0.01) == (sample < 2)
    state = small.state
    assert decode(Kind.OFFLOAD, encode(state)) == state
    partly = 2 if compute_here else 5
    assert (state.combined_partly, state.computed_here, state.given_up) == (partly, 5 - partly, 0)
    assert [
        source in names for source, names in zip(state.sources, small.site.members, strict=True)
    ] == [
        False,
        True,
        True,
    ]
    assert state.sources[0] == ""
    assert state.accuracy == small.site.detail.accuracy["1"]


def test_a_group_that_stalls_is_no_overload() -> None:
    """Several samples wait for it at a time; each gets the portions of the others, none is shed."""
    run = site(3, 3, 2).make_run(
        samples=60,
        compute_here=False,
        timeout_s=0.35,
        timing=Timing(window_s=0.5, deadline_s=3.0),
    )
    for action, at_s in (("stall", 1.05), ("resume", 4.05)):
        run.schedule(START_S + at_s, action, "worker7", "worker8")
    run.scenario.run()
    state = run.offload_state
    assert (state.given_up, state.computed_here) == (0, 0)
    assert 3 <= state.combined_partly < state.combined
    assert run.machine(EDGE).counts.get("tasks_shed", 0) == 0


def test_a_group_that_dies_is_filled_with_all_who_live_still_waited_for() -> None:
    """The crash of one group must not end a task that others still compute."""
    small = Small(site(3, 3, 2), student_s=0.06)  # the Will comes before
    small.schedule(SENT_S + 0.003, "crash", ["worker1", "worker2", "worker3"])
    small.run(1)
    small.assert_result(0, (1, 2))


def test_of_groups_that_live_the_first_answers_are_used_although_another_is_lost() -> None:
    """Also where the second member of a group has just stalled."""
    small = Small(site(3, 3, 2))
    small.schedule(1.0, "crash", ["worker7", "worker8"])
    small.schedule(1.9, "stall", ["worker1", "worker2", "worker4"])
    small.run(4)
    for sample in range(4):
        small.assert_result(sample, (0, 1))
        assert small.inner.results[sample][1] < SENT_S + 0.1 * sample + TIMEOUT_S / 2
    state = small.state
    assert (state.combined_partly, state.given_up) == (4, 0)
    assert [state.workers[f"worker{i}"].state for i in (1, 2, 4)] == ["stalled"] * 3


def test_who_answers_second_has_answered_and_was_not_needed() -> None:
    small = Small(site(3, 3, 2))
    small.run(20)
    state = small.state
    assert (state.combined, state.combined_partly, state.spare_workers) == (20, 0, 1)
    for names in small.site.members:
        workers = [state.workers[name] for name in names]
        assert all(worker.answered == 20 and worker.missed == 0 for worker in workers)
        assert sum(worker.used for worker in workers) == 20
        assert all(worker.used + worker.late == 20 for worker in workers)
        assert all(worker.used for worker in workers)  # each is first at times
    assert state.accuracy == small.site.detail.accuracy["0"]
    assert [
        source in names for source, names in zip(state.sources, small.site.members, strict=True)
    ] == [True] * 3


def test_who_contradicts_the_other_two_of_a_group_is_excluded() -> None:
    small = Small(site(3, 3, 2), liars=["worker5"])
    small.run(10)
    state = small.state
    faulty = [name for name, worker in state.workers.items() if worker.state == "faulty"]
    assert (faulty, state.counts) == (["worker5"], {"contradictions": 0})
    for sample in range(1, 10):
        small.assert_result(sample, range(3))


def test_of_two_that_contradict_each_other_nobody_is_blamed() -> None:
    small = Small(site(3, 3, 2), liars=["worker8"])
    small.run(10)
    assert {worker.state for worker in small.state.workers.values()} == {"live"}
    assert small.state.counts == {"contradictions": 10}


def test_a_spare_joins_the_group_that_has_lost_most() -> None:
    of = site(3, 3, 2)
    small = Small(of)
    small.simulation.add(
        Identity("home", "spare", "worker", BUNDLE, ""),
        lambda kept: of.make_worker("spare"),
        of.shards,
    )
    small.schedule(1.0, "crash", ["worker1", "worker4", "worker5", "worker7", "worker8"])
    small.run(2)
    for sample in range(2):
        small.assert_result(sample, range(3))
    assert small.state.workers["spare"].pieces == [2]


def test_a_worker_that_started_without_a_plan_serves_once_there_is_one() -> None:
    """Without a restart: the plan is copied to its disk while a group is lost."""
    of = site(3, 3, 2)
    small = Small(of)
    name = small.simulation.add(
        Identity("home", "spare", "worker", BUNDLE, ""),
        lambda kept: WorkerNode("home", "spare", None, None),
        of.shards,
    )
    small.schedule(1.0, "crash", ["worker7", "worker8"])
    copied_s = SENT_S + 0.25
    small.simulation.at(copied_s, lambda: small.simulation.node(name).plans.update({PLAN: of.plan}))
    small.run(16, every_s=0.4)
    for sample in range(16):
        time_s = SENT_S + 0.4 * sample
        if time_s < copied_s or time_s > copied_s + RETRY_S + 0.5:
            small.assert_result(sample, (0, 1) if time_s < copied_s else range(3))
    assert small.state.workers["spare"].pieces == [2]


# ------------------------------------------------------------------- whole sites


def assert_same(run: Run, samples: Collection[int]) -> None:
    """These answers are those of a site without workers, bit for bit."""
    for sample in samples:
        answer, other = run.store[sample], answer_undivided()[sample]
        for field in ("exit", "label", "probabilities", "eta", "members", "missing", "quality"):
            assert getattr(answer, field) == getattr(other, field), (sample, field)


@pytest.mark.parametrize("seed", range(12))
def test_as_long_as_each_group_has_a_live_member_nothing_changes(seed: int) -> None:
    """Workers crash and stall at random times, and come back; one of each group never does."""
    generator = np.random.default_rng(seed)
    run = site(3, 3, 2).make_run()
    for names in run.site.members:
        steady = generator.choice(names)
        for name in names:
            if name == steady:
                continue
            for begin_s in generator.uniform(START_S, END_S, 2).tolist():
                how, back = [("crash", "start"), ("stall", "resume")][generator.integers(2)]
                run.schedule(begin_s, how, name)
                run.schedule(begin_s + float(generator.uniform(0.1, 1.0)), back, name)
    run.scenario.run()
    assert_same(run, range(SAMPLES))
    assert_in_time(run)
    state = run.offload_state
    assert (state.computed_here, state.given_up, state.combined_partly) == (0, 0, 0)
    assert state.combined == sum(answer.exit != "local" for answer in answer_undivided().values())


def test_answers_name_the_workers_of_a_lost_portion_at_edge_and_cloud() -> None:
    """The cloud's verdict on incomplete features is no better than they are."""
    run = site(3, 3, 2).make_run(compute_here=False)
    run.schedule(START_S - 0.2, "crash", "worker7", "worker8")
    run.scenario.run()
    assert_in_time(run)
    of: StudentSite = run.site
    sections = {**of.sections, EDGE: lambda arrays: of.compute(arrays, (0, 1))}
    exits = set()
    for sample, answer in run.store.items():
        expected = run_undistributed(of.manifest, sections, run.scenario.images[sample])
        assert (answer.exit, answer.label) == (expected.exit, expected.label)
        assert answer.probabilities == expected.probabilities
        exits.add(answer.exit)
        if answer.exit == "local":
            assert (answer.quality, answer.missing) == ("full", [])
            continue
        assert (answer.quality, answer.missing) == ("degraded", ["worker7", "worker8"])
        assert answer.expected_accuracy == of.detail.accuracy["4"][answer.exit]
    assert exits == {"local", "edge", "cloud"}
    assert run.offload_state.combined_partly == run.offload_state.combined > 0


def test_without_a_camera_too_the_accuracy_is_not_known() -> None:
    run = site(3, 3, 2).make_run(compute_here=False)
    run.schedule(START_S - 0.5, "crash", "worker7", "worker8", "cam2")
    run.scenario.run()
    deep = [answer for answer in run.store.values() if answer.exit in ("edge", "cloud")]
    assert deep
    for answer in deep:
        assert answer.missing == ["cam2", "worker7", "worker8"]
        assert (answer.quality, answer.expected_accuracy) == ("degraded", None)
