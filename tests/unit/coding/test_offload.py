"""The edge that shares its layer, event by event; whole sites are in tests/simulation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.coding.code import Code
from ddnn.coding.combiner import CHECK_S, WARY_S
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
    return OffloadSite(Code.mds(n, s) if s > 1 else Code.parity(n))


class Asks:
    """An inner machine: it wants its section for every frame, and keeps what comes of it."""

    def __init__(self) -> None:
        self.counts = {"asked": 0}
        self.gauges = {"mine": 1.0}
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
                self.counts["asked"] += 1
                return [Compute(("edge/home", event.sample), EDGE, event.image)]
            case Computed(("edge/home", sample)):
                self.results.append((sample, event.outputs))
        return []


class Edge:
    """A SharingNode of n workers with one shard each, all live; its effects, taken by hand."""

    def __init__(self, n: int = 6, s: int = 2, live: bool = True, **options) -> None:
        self.site = site(n, s)
        self.inner = Asks()
        self.machine = self.site.wrap_edge(self.inner, **options)
        self.now_s = 5.0
        self.computes: list[Compute] = []
        self.tasks: list[Task] = []
        self.told: list[OffloadState] = []
        self.event(Connected())
        for piece in range(n if live else 0):
            self.join(piece)

    def event(self, event: Event) -> None:
        now = Now(self.now_s, 1_700_000_000 + self.now_s)
        for effect in self.machine.handle(event, now):
            match effect:
                case Compute():
                    self.computes.append(effect)
                case Publish(Topic(_, Kind.TASK, "edge"), Task() as task):
                    self.tasks.append(task)
                case Publish(Topic(_, Kind.OFFLOAD, "edge") as topic, OffloadState() as sharing):
                    assert decode(topic.kind, encode(sharing)) == sharing
                    self.told.append(sharing)

    def node(self, kind: Kind, piece: int, message: Any) -> None:
        self.event(Received(Topic("home", kind, f"worker{piece + 1}"), message))

    def join(self, piece: int) -> None:
        self.node(Kind.STATUS, piece, Status("worker", 1, "online"))
        self.node(Kind.OFFER, piece, WorkerOffer({PLAN: [piece]}))

    def leave(self, piece: int) -> None:
        self.node(Kind.STATUS, piece, Status("worker", 1, "lost"))

    def ask(self, sample: int) -> None:
        generator = np.random.default_rng(sample)
        features = generator.choice([-1.0, 1.0], SHAPE).astype(np.float32)
        self.event(Captured(sample, 0.0, {"features": features}))

    def compute(self, *sections: str, change=lambda outputs: outputs) -> int:
        """Run what was asked for; how many."""
        mine = [each for each in self.computes if each.section in sections]
        self.computes = [each for each in self.computes if each.section not in sections]
        for each in mine:
            outputs = self.site.sections[each.section](each.inputs)
            self.event(Computed(each.job, change(outputs)))
        return len(mine)

    def answer(self, piece: int, task: Task | None = None, factor: float = 1.0) -> None:
        task = task or self.tasks[-1]
        z = self.site.shards[PieceKey(PLAN, piece)]({"x": task.inputs["x"].array()})["z"]
        z = (z * np.float32(factor)).astype(np.float32)
        self.node(Kind.RESULT, piece, Result(1, PLAN, task.job, piece, {"z": Tensor.of(z)}))

    def wait(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while (due_s := self.machine.deadline_s()) is not None and due_s <= until_s:
            self.now_s = max(due_s, self.now_s)
            self.event(Tick())
        self.now_s = until_s

    def whole(self, sample: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(sample)
        features = generator.choice([-1.0, 1.0], SHAPE).astype(np.float32)
        return self.site.sections[EDGE]({"features": features})

    def assert_results(self, *samples: int) -> None:
        """Each of these was computed once, and equals the undivided section's."""
        assert sorted(sample for sample, _ in self.inner.results) == sorted(samples)
        for sample, outputs in self.inner.results:
            expected = self.whole(sample)
            for name in ("scores", "features"):
                np.testing.assert_allclose(
                    outputs[name], expected[name], rtol=0, atol=self.site.error
                )

    @property
    def own(self) -> tuple[int, int, int]:
        counts = self.machine.counts
        return counts["combined"], counts["computed_here"], counts["given_up"]


# -------------------------------------------------------------------------- a sample


def test_head_task_decode_tail() -> None:
    edge = Edge()
    edge.ask(1)
    assert edge.inner.results == []
    assert [each.section for each in edge.computes] == [HEAD]
    edge.compute(HEAD)
    (task,) = edge.tasks
    assert (task.plan, task.inputs["x"].shape) == (PLAN, edge.site.plan.inputs["x"].shape)
    for piece in (5, 1, 0):
        edge.answer(piece)
        assert edge.computes == []
    edge.answer(3)
    assert [each.section for each in edge.computes] == [TAIL]
    edge.compute(TAIL)
    edge.assert_results(1)
    assert edge.own == (1, 0, 0)
    edge.answer(2)
    edge.answer(4)
    edge.wait(1.0)
    assert edge.computes == []
    assert edge.own == (1, 0, 0)


def test_samples_under_way_at_once_do_not_mix() -> None:
    edge = Edge()
    for sample in range(5):
        edge.ask(sample)
    edge.compute(HEAD)
    for piece in range(6):
        for task in reversed(edge.tasks):
            edge.answer(piece, task)
    edge.compute(TAIL)
    edge.assert_results(*range(5))


def test_without_enough_workers_the_section_runs_here_at_once() -> None:
    edge = Edge(live=False)
    edge.ask(1)
    assert [each.section for each in edge.computes] == [EDGE]
    edge.compute(EDGE)
    edge.assert_results(1)
    assert edge.own == (0, 1, 0)
    assert edge.tasks == []


def test_where_it_cannot_run_here_the_inner_machine_is_told() -> None:
    edge = Edge(live=False, compute_here=False)
    edge.ask(1)
    assert edge.inner.results == [(1, None)]
    assert edge.own == (0, 0, 1)
    assert edge.computes == []


def test_too_late_it_runs_here() -> None:
    edge = Edge()
    edge.ask(1)
    edge.compute(HEAD)
    for piece in range(3):
        edge.answer(piece)
    edge.wait(TIMEOUT_S - 0.001)
    assert edge.computes == []
    edge.wait(0.002)
    assert edge.compute(EDGE) == 1
    edge.answer(3)
    edge.answer(4)
    edge.wait(1.0)
    edge.assert_results(1)
    assert edge.own == (0, 1, 0)


def test_workers_lost_while_the_head_runs() -> None:
    """The task goes out all the same, to learn who is there; nobody waits for it."""
    edge = Edge()
    edge.ask(1)
    for piece in range(3):
        edge.leave(piece)
    edge.compute(HEAD)
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)
    assert len(edge.tasks) == 1


def nothing_open(edge: Edge) -> bool:
    offload = edge.machine.current
    return not (offload._jobs or offload._tasks or edge.machine._of_job)


def not_a_number(name):
    return lambda outputs: {**outputs, name: outputs[name] * np.float32(np.nan)}


@pytest.mark.parametrize("change", [lambda outputs: None, not_a_number("x")])
def test_a_head_that_fails_asks_nobody(change) -> None:
    """Workers would all fail with it, and would be taken for stalled."""
    edge = Edge()
    edge.ask(1)
    edge.compute(HEAD, change=change)
    assert edge.tasks == []
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)


@pytest.mark.parametrize("change", [lambda outputs: None, not_a_number("scores")])
def test_a_tail_that_fails(change) -> None:
    edge = Edge()
    edge.ask(1)
    edge.compute(HEAD)
    for piece in range(6):
        edge.answer(piece)
    edge.compute(TAIL, change=change)
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)


def test_answers_too_large_to_decode() -> None:
    """Finite, each of them; what comes out is not."""
    edge = Edge()
    edge.ask(1)
    edge.compute(HEAD)
    for piece in (2, 3, 4, 5):
        z = np.full(edge.site.plan.pieces[0].outputs["z"].shape, 3e38, np.float32)
        edge.node(
            Kind.RESULT, piece, Result(1, PLAN, edge.tasks[-1].job, piece, {"z": Tensor.of(z)})
        )
    edge.compute(TAIL)
    assert edge.compute(EDGE) == 1
    edge.assert_results(1)


def test_more_samples_than_are_kept() -> None:
    """The oldest run here; none is lost, none is answered twice."""
    edge = Edge(timeout_s=10.0)
    for sample in range(LIMIT + 10):
        edge.ask(sample)
    assert edge.compute(EDGE) == 10
    edge.compute(HEAD)
    for sample in range(LIMIT + 10, LIMIT + 20):
        edge.ask(sample)
        edge.compute(HEAD)
    for task in list(edge.tasks):
        for piece in range(6):
            edge.answer(piece, task)
    edge.compute(EDGE, TAIL)
    edge.assert_results(*range(LIMIT + 20))
    assert nothing_open(edge)


def test_results_of_nothing_that_was_asked() -> None:
    edge = Edge()
    for name in (HEAD, TAIL):
        for outputs in (None, {"x": np.zeros(24, np.float32), "scores": np.zeros(4)}):
            edge.event(Computed(OffloadJob(PLAN, name.piece, 17), outputs))
    assert edge.computes == []
    assert edge.tasks == []


STEPS = st.lists(
    st.one_of(
        st.just(("ask", 0)),
        st.tuples(st.sampled_from(["answer", "leave", "join", "lie"]), st.integers(0, 5)),
        st.tuples(st.sampled_from(["head", "tail", "edge"]), st.sampled_from([0, 0, 0, 1])),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.booleans(), st.sampled_from([0.0, 0.03]))
def test_every_sample_comes_to_exactly_one_end(steps, here, threshold_s) -> None:
    """Whatever happens in whatever order; and nothing is kept afterwards."""
    edge = Edge(compute_here=here, threshold_s=threshold_s)
    asked = 0
    for what, number in steps:
        match what:
            case "ask":
                edge.ask(asked)
                asked += 1
            case "answer" | "lie" if edge.tasks:
                task = edge.tasks[-1 - number % min(len(edge.tasks), 3)]
                edge.answer(number, task, factor=1.0 if what == "answer" else 3.0)
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
    assert sorted(sample for sample, _ in edge.inner.results) == list(range(asked))
    assert nothing_open(edge)
    if here:
        assert edge.own[2] == 0
    assert sum(edge.own) == asked


# --------------------------------------------------------------- as a machine, to look at


def test_the_inner_machine_gets_all_but_the_gatherers_messages() -> None:
    edge = Edge()
    edge.ask(1)
    edge.compute(HEAD)
    edge.answer(0)
    kinds = {event.topic.kind for event in edge.inner.events if isinstance(event, Received)}
    assert kinds == {Kind.STATUS}
    assert not [event for event in edge.inner.events if isinstance(event, Computed)]


def test_subscriptions_counts_and_deadlines_of_both() -> None:
    edge = Edge()
    wanted = {
        topic_filter(kind, "home") for kind in (Kind.FEATURES, Kind.STATUS, Kind.RESULT, Kind.OFFER)
    }
    assert set(edge.machine.subscriptions()) == wanted
    assert len(edge.machine.subscriptions()) == len(wanted)
    assert edge.machine.counts["asked"] == 0
    assert edge.machine.gauges["mine"] == 1.0
    assert edge.machine.gauges["live_pieces"] == 6
    assert edge.machine.gauges["enough_pieces"] == 1
    edge.inner.due_s = 0.25
    assert edge.machine.deadline_s() == 0.25


def test_the_state_is_told_every_second_while_there_is_a_broker() -> None:
    edge = Edge()
    del edge.told[:]
    edge.wait(3 * STATE_S)
    assert len(edge.told) == 3
    told = edge.told[-1]
    assert (told.plan, told.pieces, told.live_pieces) == (PLAN, 6, 6)
    assert (told.enough, told.spare_workers) == (True, 2)
    assert {state.state for state in told.workers.values()} == {"live"}
    edge.event(Disconnected())
    del edge.told[:]
    edge.wait(3 * STATE_S)
    assert edge.told == []


def test_how_long_decoding_takes() -> None:
    ticks = iter(range(100))
    edge = Edge(stopwatch=lambda: 0.004 * next(ticks))
    edge.ask(1)
    edge.compute(HEAD)
    edge.now_s += 0.02
    for piece in range(5):
        edge.answer(piece)
    edge.wait(2.0)
    assert edge.told[-1].combine_ms == pytest.approx(4.0)
    assert edge.told[-1].gather_ms == pytest.approx(20.0)
    assert edge.told[-1].missing == ["worker5", "worker6"]


# ------------------------------------------------------------------------- the faulty


def sample(edge: Edge, number: int, liar: int | None, pieces=range(6)) -> None:
    edge.ask(number)
    if edge.compute(HEAD):
        for piece in pieces:
            edge.answer(piece, factor=1.01 if piece == liar else 1.0)
    edge.compute(TAIL)
    edge.wait(0.1)
    edge.compute(EDGE)


def test_a_liar_is_named_by_surplus_answers() -> None:
    edge = Edge()
    edge.wait(CHECK_S)
    sample(edge, 1, liar=5)  # among the surplus: its answer was not used
    assert edge.machine.counts["workers_faulty"] == 1
    edge.assert_results(1)
    edge.wait(1.0)
    assert edge.told[-1].workers["worker6"].state == "faulty"
    for number in range(2, 5):
        sample(edge, number, liar=5, pieces=(5, 0, 1, 2, 3, 4))
    edge.assert_results(1, 2, 3, 4)
    assert edge.own == (4, 0, 0)


def test_all_honest_nobody_is_blamed() -> None:
    edge = Edge()
    for number in range(20):
        sample(edge, number, liar=None)
    assert "workers_faulty" not in edge.machine.counts
    assert edge.own == (20, 0, 0)


def test_a_contradiction_without_a_culprit() -> None:
    """One parity: believed is only what agrees, until there was no contradiction for a while."""
    edge = Edge(s=1)
    sample(edge, 0, liar=5)  # seen in the surplus
    sample(edge, 1, liar=0, pieces=(0, 1, 2, 3, 4, 5))  # would have been used
    assert edge.own == (1, 1, 0)
    sample(edge, 2, liar=None)  # all agree: used
    assert edge.own == (2, 1, 0)
    sample(edge, 3, liar=None, pieces=range(5))  # nothing to check it with
    assert edge.own == (2, 2, 0)
    edge.assert_results(0, 1, 2, 3)
    edge.wait(WARY_S)
    sample(edge, 4, liar=None, pieces=range(5))
    assert edge.own == (3, 2, 0)
    assert "workers_faulty" not in edge.machine.counts
