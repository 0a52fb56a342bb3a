"""An edge whose layer runs on workers, event by event; whole sites are in tests/simulation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.coding.combiner import CHECK_S, VERIFY_S
from ddnn.coding.constructions import make_mds, make_parity
from ddnn.core.plan import PieceKey
from ddnn.machines.offload import LIMIT, OffloadJob
from ddnn.machines.offload_node import STATE_S
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import OffloadState, Result, Status, Task, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic, topic_filter
from tests.simulation.offload_site import DEVICES, EDGE, HEAD, PLAN, TAIL, TIMEOUT_S, OffloadSite
from tests.simulation.small_hierarchy import FEATURES

SHAPE = (*FEATURES[:-1], FEATURES[-1] * DEVICES)


@cache
def site(n: int = 6, s: int = 2) -> OffloadSite:
    return OffloadSite(make_mds(n, s) if s > 1 else make_parity(n))


class InnerMachine:
    """It requests its section for every frame, and records the results."""

    def __init__(self) -> None:
        self.counts = {"requested": 0}
        self.gauges = {"inner": 1.0}
        self.results: list[tuple[int, Any]] = []
        self.events: list[Event] = []
        self.due_s: float | None = None

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.FEATURES, "home"), topic_filter(Kind.STATUS, "home")]

    def deadline_s(self) -> float | None:
        return self.due_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        self.events.append(event)
        match event:
            case Captured():
                self.counts["requested"] += 1
                return [Compute(("edge/home", event.sample), EDGE, event.image)]
            case Computed(("edge/home", sample)):
                self.results.append((sample, event.outputs))
        return []


class Edge:
    """An OffloadNode and n live workers of one shard each; the test carries out its effects."""

    def __init__(self, n: int = 6, s: int = 2, live: bool = True, **options) -> None:
        self.site = site(n, s)
        self.inner = InnerMachine()
        self.machine = self.site.wrap_edge(self.inner, **options)
        self.now_s = 5.0
        self.computes: list[Compute] = []
        self.tasks: list[Task] = []
        self.states: list[OffloadState] = []
        self.handle(Connected())
        for piece in range(n if live else 0):
            self.join(piece)

    def handle(self, event: Event) -> None:
        now = Now(self.now_s, 1_700_000_000 + self.now_s)
        for effect in self.machine.handle(event, now):
            match effect:
                case Compute():
                    self.computes.append(effect)
                case Publish(Topic(_, Kind.TASK, "edge"), Task() as task):
                    self.tasks.append(task)
                case Publish(Topic(_, Kind.OFFLOAD, "edge") as topic, OffloadState() as state):
                    assert decode(topic.kind, encode(state)) == state
                    self.states.append(state)

    def receive(self, kind: Kind, piece: int, message: Any) -> None:
        self.handle(Received(Topic("home", kind, f"worker{piece + 1}"), message))

    def join(self, piece: int) -> None:
        self.receive(Kind.STATUS, piece, Status("worker", 1, "online"))
        self.receive(Kind.OFFER, piece, WorkerOffer({PLAN: [piece]}))

    def leave(self, piece: int) -> None:
        self.receive(Kind.STATUS, piece, Status("worker", 1, "lost"))

    def request(self, sample: int) -> None:
        generator = np.random.default_rng(sample)
        features = generator.choice([-1.0, 1.0], SHAPE).astype(np.float32)
        self.handle(Captured(sample, 0.0, {"features": features}))

    def compute(self, *sections: str, change=lambda outputs: outputs) -> int:
        """Carry out the Compute effects of these sections; their number."""
        selected = [each for each in self.computes if each.section in sections]
        self.computes = [each for each in self.computes if each.section not in sections]
        for each in selected:
            outputs = self.site.sections[each.section](each.inputs)
            self.handle(Computed(each.job, change(outputs)))
        return len(selected)

    def report(self, piece: int, task: Task | None = None, factor: float = 1.0) -> None:
        task = task or self.tasks[-1]
        z = self.site.shards[PieceKey(PLAN, piece)]({"x": task.inputs["x"].array()})["z"]
        z = (z * np.float32(factor)).astype(np.float32)
        self.receive(Kind.RESULT, piece, Result(1, PLAN, task.job, piece, {"z": Tensor.of(z)}))

    def wait(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while (due_s := self.machine.deadline_s()) is not None and due_s <= until_s:
            self.now_s = max(due_s, self.now_s)
            self.handle(Tick())
        self.now_s = until_s

    def compute_undivided(self, sample: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(sample)
        features = generator.choice([-1.0, 1.0], SHAPE).astype(np.float32)
        return self.site.sections[EDGE]({"features": features})

    def assert_results(self, *samples: int) -> None:
        """Each of these was computed once, and equals the undivided section's."""
        assert sorted(sample for sample, _ in self.inner.results) == sorted(samples)
        for sample, outputs in self.inner.results:
            expected = self.compute_undivided(sample)
            for name in ("scores", "features"):
                np.testing.assert_allclose(
                    outputs[name], expected[name], rtol=0, atol=self.site.error
                )

    @property
    def own_counts(self) -> tuple[int, int, int]:
        counts = self.machine.counts
        return counts["combined"], counts["computed_here"], counts["given_up"]


# -------------------------------------------------------------------------- a sample


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


def has_nothing_open(edge: Edge) -> bool:
    offload = edge.machine.current
    return not (offload._jobs or offload._tasks or edge.machine._of_job)


def replace_by_nan(name):
    return lambda outputs: {**outputs, name: outputs[name] * np.float32(np.nan)}


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
    """All of these workers report; the faulty one a wrong result."""
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
