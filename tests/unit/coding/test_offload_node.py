"""What an edge with workers passes on and publishes, and how it excludes faulty workers."""

from __future__ import annotations

import pytest

from ddnn.coding.combiner import CHECK_S, VERIFY_S
from ddnn.machines.offload_node import STATE_S
from ddnn.protocol.machine import Computed, Disconnected, Received
from ddnn.protocol.topics import Kind, topic_filter
from tests.simulation.offload_site import EDGE, HEAD, PLAN, TAIL
from tests.unit.coding.offloading_edge import Edge

# ----------------------------------------------------------------------- as a machine


def test_the_inner_machine_gets_no_messages_of_the_gatherer() -> None:
    edge = Edge()
    edge.request(1)
    edge.compute(HEAD)
    edge.report(0)
    kinds = {event.topic.kind for event in edge.inner.events if isinstance(event, Received)}
    assert kinds == {Kind.STATUS}
    assert not [event for event in edge.inner.events if isinstance(event, Computed)]


def test_subscriptions_counts_and_deadlines_are_those_of_both_machines() -> None:
    edge = Edge()
    expected = {
        topic_filter(kind, "home") for kind in (Kind.FEATURES, Kind.STATUS, Kind.RESULT, Kind.OFFER)
    }
    assert set(edge.machine.subscriptions()) == expected
    assert len(edge.machine.subscriptions()) == len(expected)
    assert edge.machine.counts["requested"] == 0
    assert edge.machine.gauges["inner"] == 1.0
    assert edge.machine.gauges["live_pieces"] == 6
    assert edge.machine.gauges["enough_pieces"] == 1
    edge.inner.due_s = 0.25
    assert edge.machine.deadline_s() == 0.25


def test_the_state_is_published_every_second_while_connected() -> None:
    edge = Edge()
    del edge.states[:]
    edge.wait(3 * STATE_S)
    assert len(edge.states) == 3
    last = edge.states[-1]
    assert (last.plan, last.pieces, last.live_pieces) == (PLAN, 6, 6)
    assert (last.enough, last.spare_workers) == (True, 2)
    assert {state.state for state in last.workers.values()} == {"live"}
    edge.handle(Disconnected())
    del edge.states[:]
    edge.wait(3 * STATE_S)
    assert edge.states == []


def test_the_state_contains_the_times_of_gathering_and_decoding() -> None:
    ticks = iter(range(100))
    edge = Edge(stopwatch=lambda: 0.004 * next(ticks))
    edge.request(1)
    edge.compute(HEAD)
    edge.now_s += 0.02
    for piece in range(5):
        edge.report(piece)
    edge.wait(2.0)
    assert edge.states[-1].combine_ms == pytest.approx(4.0)
    assert edge.states[-1].gather_ms == pytest.approx(20.0)
    assert edge.states[-1].missing == ["worker5", "worker6"]


# --------------------------------------------------------------------- faulty workers


def run_sample(edge: Edge, number: int, faulty: int | None, pieces=range(6)) -> None:
    """Request one sample. These workers report, the faulty one a wrong result."""
    edge.request(number)
    if edge.compute(HEAD):
        for piece in pieces:
            edge.report(piece, factor=1.01 if piece == faulty else 1.0)
    edge.compute(TAIL)
    edge.wait(0.1)
    edge.compute(EDGE)


def test_a_faulty_worker_is_identified_by_surplus_results() -> None:
    edge = Edge()
    edge.wait(CHECK_S)
    run_sample(edge, 1, faulty=5)  # its result is surplus and was not used
    assert edge.machine.counts["workers_faulty"] == 1
    edge.assert_results(1)
    edge.wait(1.0)
    assert edge.states[-1].workers["worker6"].state == "faulty"
    for number in range(2, 5):
        run_sample(edge, number, faulty=5, pieces=(5, 0, 1, 2, 3, 4))
    edge.assert_results(1, 2, 3, 4)
    assert edge.own_counts == (4, 0, 0)


def test_without_a_fault_no_worker_is_excluded() -> None:
    edge = Edge()
    for number in range(20):
        run_sample(edge, number, faulty=None)
    assert "workers_faulty" not in edge.machine.counts
    assert edge.own_counts == (20, 0, 0)


def test_a_contradiction_of_unknown_cause() -> None:
    """One parity: for a time only results are used that agree with a surplus one."""
    edge = Edge(s=1)
    run_sample(edge, 0, faulty=5)  # detected in the surplus
    run_sample(edge, 1, faulty=0, pieces=(0, 1, 2, 3, 4, 5))  # would have been used
    assert edge.own_counts == (1, 1, 0)
    run_sample(edge, 2, faulty=None)  # all agree: used
    assert edge.own_counts == (2, 1, 0)
    run_sample(edge, 3, faulty=None, pieces=range(5))  # no surplus to verify it with
    assert edge.own_counts == (2, 2, 0)
    edge.assert_results(0, 1, 2, 3)
    edge.wait(VERIFY_S)
    run_sample(edge, 4, faulty=None, pieces=range(5))
    assert edge.own_counts == (3, 2, 0)
    assert "workers_faulty" not in edge.machine.counts
