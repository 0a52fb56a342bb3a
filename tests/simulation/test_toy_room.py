"""A new room needs no shared file: a toy room runs through all of them.

Plan file, registry, workers, gather, offload and the page's state; see tests/toy_room.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddnn import rooms
from ddnn.adapters.matrices import load_section, write_matrix
from ddnn.core.plan import PlanRequest
from ddnn.core.section import Arrays
from ddnn.local_site.planning import parse_workers
from ddnn.machines.offload_node import OffloadNode
from ddnn.machines.worker import WorkerNode
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import Captured, Compute, Computed, Effect, Event, Now, Publish
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.topics import Kind
from ddnn.runtime.identity import Identity
from ddnn.runtime.plans import PlanDirectory
from ddnn.runtime.simulation import Simulation
from tests import toy_room

BUNDLE = "ab12cd34"


class SectionRequester:
    """A machine that runs its section for every number that it receives."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.results: dict[object, Arrays | None] = {}

    def subscriptions(self) -> list[str]:
        return []

    def deadline_s(self) -> float | None:
        return None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Captured():
                return [Compute(event.sample, "edge", event.image)]
            case Computed(job):
                self.results[job] = event.outputs
        return []


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanDirectory:
    monkeypatch.setattr(rooms, "_ENTRIES", dict(rooms._ENTRIES))
    rooms.register("toy", toy_room.ENTRY)
    assert "toy" in rooms.list_redundancies()  # of `ddnn plan` and `ddnn demo`
    request = PlanRequest("toy", parse_workers("3"))
    make_plan = rooms.find_planner("toy")
    make_plan(tmp_path / BUNDLE, tmp_path / "plan", request, write_matrix=write_matrix)
    return PlanDirectory(tmp_path / "plan", BUNDLE, load_section, rooms.find_room)


@pytest.mark.parametrize(("gone", "enough"), [(0, True), (1, True), (2, False)])
def test_a_toy_room_runs_on_the_shared_machines(
    directory: PlanDirectory, gone: int, enough: bool
) -> None:
    plan, inner, states = directory.read(), SectionRequester(), []
    room = rooms.find_room(plan.room)
    simulation = Simulation(np.random.default_rng(0))

    class Edge(OffloadNode):
        def handle(self, event: Event, now: Now) -> list[Effect]:
            effects = super().handle(event, now)
            sent = [effect.message for effect in effects if isinstance(effect, Publish)]
            states.extend(message for message in sent if isinstance(message, OffloadState))
            return effects

    edge = simulation.add(
        Identity("home", "edge", "edge", BUNDLE, ""),
        lambda kept: Edge(inner, "home", plan, room.make_combiner, compute_here=False),
    )
    for number, name in enumerate(plan.placement):
        node = simulation.add(
            Identity("home", name, "worker", BUNDLE, ""),
            lambda kept, name=name: WorkerNode("home", name, plan, None),
            {plan.key(number): directory.load(plan.key(number))},
        )
        if number < gone:
            simulation.at(1.0, lambda node=node: simulation.crash(node))
    for sample in range(10):
        frame = Captured(sample, 0.0, {"x": np.array([sample], np.float32)})
        simulation.at(2.0 + sample, lambda frame=frame: simulation.capture(edge, frame))
    simulation.run(15.0)
    assert simulation.failures == []
    assert len(inner.results) == 10
    for sample, outputs in inner.results.items():
        assert (outputs is not None) == enough
        if outputs is not None:
            assert outputs["z"].tolist() == [sample + 1]
    state = states[-1]
    assert decode(Kind.OFFLOAD, encode(state)) == state
    assert (state.room, state.title, state.pieces) == ("toy", "adding one", 3)
    assert (state.enough, state.live_pieces) == (enough, 3 - gone)
    assert state.combined == (10 if enough else 0)
