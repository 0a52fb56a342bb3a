"""An edge whose layer runs on workers that the test plays, event by event."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ddnn.coding.constructions import make_mds, make_parity
from ddnn.core.plan import PieceKey
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Connected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import (
    Result,
    Status,
    Task,
    Tensor,
    WorkerOffer,
)
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.topics import Kind, Topic, topic_filter
from tests.simulation.offload_site import DEVICES, EDGE, PLAN, CodedSite, OffloadSite
from tests.simulation.small_hierarchy import FEATURES

SHAPE = (*FEATURES[:-1], FEATURES[-1] * DEVICES)


@cache
def make_site(n: int = 6, s: int = 2) -> OffloadSite:
    return CodedSite(make_mds(n, s) if s > 1 else make_parity(n))


class InnerMachine:
    """A machine that requests its section for every frame, and records the results."""

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
        self.site = make_site(n, s)
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


def has_nothing_open(edge: Edge) -> bool:
    offload = edge.machine.current
    return not (offload._jobs or offload._tasks or edge.machine._of_job)


def replace_by_nan(name):
    return lambda outputs: {**outputs, name: outputs[name] * np.float32(np.nan)}
