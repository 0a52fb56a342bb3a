"""Every sample has one result, that of the undivided section, whatever workers do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.machines.offload import LIMIT, OffloadJob
from ddnn.protocol.machine import Computed
from ddnn.protocol.messages import Result, Tensor
from ddnn.protocol.topics import Kind
from tests.simulation.offload_site import EDGE, HEAD, PLAN, TAIL, TIMEOUT_S
from tests.unit.coding.offloading_edge import Edge, has_nothing_open, replace_by_nan


def test_a_sample_goes_through_head_workers_decoding_and_tail() -> None:
    edge = Edge()
    edge.request(1)
    assert edge.inner.results == []
    assert [each.section for each in edge.computes] == [HEAD]
    edge.compute(HEAD)
    (task,) = edge.tasks
    assert (task.plan, task.inputs["x"].shape) == (PLAN, edge.site.plan.inputs["x"].shape)
    for piece in (5, 1, 0):
        edge.report(piece)
        assert edge.computes == []
    edge.report(3)
    assert [each.section for each in edge.computes] == [TAIL]
    edge.compute(TAIL)
    edge.assert_results(1)
    assert edge.own_counts == (1, 0, 0)
    edge.report(2)
    edge.report(4)
    edge.wait(1.0)
    assert edge.computes == []
    assert edge.own_counts == (1, 0, 0)


def test_concurrent_samples_do_not_mix() -> None:
    edge = Edge()
    for sample in range(5):
        edge.request(sample)
    edge.compute(HEAD)
    for piece in range(6):
        for task in reversed(edge.tasks):
            edge.report(piece, task)
    edge.compute(TAIL)
    edge.assert_results(*range(5))


def test_without_enough_workers_the_edge_computes_the_section_at_once() -> None:
    edge = Edge(live=False)
    edge.request(1)
    assert [each.section for each in edge.computes] == [EDGE]
    edge.compute(EDGE)
    edge.assert_results(1)
    assert edge.own_counts == (0, 1, 0)
    assert edge.tasks == []


def test_without_computing_here_the_inner_machine_gets_a_failure() -> None:
    edge = Edge(live=False, compute_here=False)
    edge.request(1)
    assert edge.inner.results == [(1, None)]
    assert edge.own_counts == (0, 0, 1)
    assert edge.computes == []


def test_after_the_timeout_the_edge_computes_the_section() -> None:
    edge = Edge()
    edge.request(1)
    edge.compute(HEAD)
    for piece in range(3):
        edge.report(piece)
    edge.wait(TIMEOUT_S - 0.001)
    assert edge.computes == []
    edge.wait(0.002)
    assert edge.compute(EDGE) == 1
    edge.report(3)
    edge.report(4)
    edge.wait(1.0)
    edge.assert_results(1)
    assert edge.own_counts == (0, 1, 0)


def test_workers_may_be_lost_while_the_head_runs() -> None:
    """The task is sent as a probe, and not waited for."""
    edge = Edge()
    edge.request(1)
    for piece in range(3):
        edge.leave(piece)
    edge.compute(HEAD)
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)
    assert len(edge.tasks) == 1


@pytest.mark.parametrize("change", [lambda outputs: None, replace_by_nan("x")])
def test_no_task_follows_a_head_that_fails(change) -> None:
    """All workers would fail with it, and would count as stalled."""
    edge = Edge()
    edge.request(1)
    edge.compute(HEAD, change=change)
    assert edge.tasks == []
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)


@pytest.mark.parametrize("change", [lambda outputs: None, replace_by_nan("scores")])
def test_after_a_tail_that_fails_the_edge_computes_the_section(change) -> None:
    edge = Edge()
    edge.request(1)
    edge.compute(HEAD)
    for piece in range(6):
        edge.report(piece)
    edge.compute(TAIL, change=change)
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)


def test_results_that_overflow_in_decoding_are_not_used() -> None:
    """Each of them is finite; the decoded output is not."""
    edge = Edge()
    edge.request(1)
    edge.compute(HEAD)
    for piece in (2, 3, 4, 5):
        z = np.full(edge.site.plan.pieces[0].outputs["z"].shape, 3e38, np.float32)
        edge.receive(
            Kind.RESULT, piece, Result(1, PLAN, edge.tasks[-1].job, piece, {"z": Tensor.of(z)})
        )
    edge.compute(TAIL)
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)


def test_beyond_the_limit_the_edge_computes_the_oldest_samples() -> None:
    """None is lost, none is answered twice."""
    edge = Edge(timeout_s=10.0)
    for sample in range(LIMIT + 10):
        edge.request(sample)
    assert edge.compute(EDGE) == 10
    edge.compute(HEAD)
    for sample in range(LIMIT + 10, LIMIT + 20):
        edge.request(sample)
        edge.compute(HEAD)
    for task in list(edge.tasks):
        for piece in range(6):
            edge.report(piece, task)
    edge.compute(EDGE, TAIL)
    edge.assert_results(*range(LIMIT + 20))
    assert has_nothing_open(edge)


def test_outputs_of_unknown_samples_are_ignored() -> None:
    edge = Edge()
    for name in (HEAD, TAIL):
        for outputs in (None, {"x": np.zeros(24, np.float32), "scores": np.zeros(4)}):
            edge.handle(Computed(OffloadJob(PLAN, name.piece, 17), outputs))
    assert edge.computes == []
    assert edge.tasks == []


STEPS = st.lists(
    st.one_of(
        st.just(("request", 0)),
        st.tuples(st.sampled_from(["answer", "leave", "join", "fault"]), st.integers(0, 5)),
        st.tuples(st.sampled_from(["head", "tail", "edge"]), st.sampled_from([0, 0, 0, 1])),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.booleans(), st.sampled_from([0.0, 0.03]))
def test_every_sample_has_exactly_one_result(steps, here, threshold_s) -> None:
    """For any events in any order; and nothing is open afterwards."""
    edge = Edge(compute_here=here, threshold_s=threshold_s)
    requested = 0
    for what, number in steps:
        match what:
            case "request":
                edge.request(requested)
                requested += 1
            case "answer" | "fault" if edge.tasks:
                task = edge.tasks[-1 - number % min(len(edge.tasks), 3)]
                edge.report(number, task, factor=1.0 if what == "answer" else 3.0)
            case "leave":
                edge.leave(number)
            case "join":
                edge.join(number)
            case "head" | "tail" | "edge":
                section = {"head": HEAD, "tail": TAIL, "edge": EDGE}[what]
                edge.compute(
                    section, change=lambda outputs, fails=number: None if fails else outputs
                )
            case "wait":
                edge.wait(number * 0.01)
    for _ in range(3):
        edge.compute(HEAD, TAIL, EDGE)
        edge.wait(1.0)
    assert sorted(sample for sample, _ in edge.inner.results) == list(range(requested))
    assert has_nothing_open(edge)
    if here:
        assert edge.own_counts[2] == 0
    assert sum(edge.own_counts) == requested
