"""Sites of redundant students: whole ones, and an edge with workers only."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import numpy as np

from ddnn.core.plan import PieceKey, find_base
from ddnn.core.section import Arrays, Section
from ddnn.machines.offload_node import OffloadNode
from ddnn.machines.replan import Replanner
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Effect,
    Event,
    Now,
    SectionName,
)
from ddnn.protocol.messages import Answer
from ddnn.protocol.offload_state import OffloadState
from ddnn.rooms import replan
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulation import Simulation
from tests.simulation.offload_checks import START_S
from tests.simulation.offload_site import EDGE, JITTER
from tests.simulation.scenario import PERIOD_S
from tests.simulation.small_hierarchy import BUNDLE
from tests.simulation.students import FUSED, StudentSite

SAMPLES = 30
END_S = START_S + SAMPLES * PERIOD_S
SENT_S = 2.0  # the first sample of a small site


@cache
def site(*groups: int) -> StudentSite:
    return StudentSite(groups)


@cache
def answer_undivided() -> dict[int, Answer]:
    """What a site without workers answers."""
    answers = site(3, 3, 2).run_without_workers(SAMPLES).simulation.store
    assert {answer.exit for answer in answers.values()} == {"local", "edge", "cloud"}
    return {sample: answer for (_, sample), answer in answers.items()}


def make_inputs(sample: int) -> Arrays:
    generator = np.random.default_rng(sample)
    return {"features": generator.choice([-1.0, 1.0], FUSED).astype(np.float32)}


class Asks:
    """A machine that wants its section for every frame."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.results: dict[int, tuple[Computed, float]] = {}

    def subscriptions(self) -> list[str]:
        return []

    def deadline_s(self) -> float | None:
        return None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Captured():
                return [Compute(event.sample, EDGE, event.image)]
            case Computed(int() as sample):
                self.results[sample] = event, now.monotonic_s
        return []


class Revisions(dict[SectionName, Section]):
    """Sections of a plan, which are those of its revisions too."""

    def __missing__(self, key: SectionName) -> Section:
        if isinstance(key, PieceKey) and find_base(key.plan) != key.plan:
            return self[PieceKey(find_base(key.plan), key.piece)]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        try:
            self[key]  # type: ignore[index]
        except KeyError:
            return False
        return True


class Small:
    """An edge and its workers, without cameras: quick enough for every set of live workers."""

    def __init__(
        self,
        of: StudentSite,
        seed: int = 0,
        *,
        compute_here: bool = False,
        student_s: float = 0.002,
        liars: Collection[str] = (),
        replan_after_s: float | None = None,
    ) -> None:
        """liars: workers that compute the portions of another input."""
        lies: dict[PieceKey, Section] = {
            key: lambda arrays, shard=shard: shard({"features": -arrays["features"]})
            for key, shard in of.shards.items()
        }
        self.site, self.inner = of, Asks()
        self.simulation = Simulation(np.random.default_rng(seed), JITTER)
        self.edge = self.simulation.add(
            Identity("home", EDGE, "edge", BUNDLE, ""),
            lambda kept: of.wrap_edge(
                self.inner,
                compute_here=compute_here,
                replanner=None
                if replan_after_s is None
                else Replanner(list(of.workers), replan, replan_after_s, 0.0),
            ),
            Revisions(of.sections),
        )
        for name in of.workers:
            self.simulation.add(
                Identity("home", name, "worker", BUNDLE, ""),
                lambda kept, name=name: of.make_worker(name),
                Revisions(lies if name in liars else of.shards),
                costs=Costs(any_section_s=student_s),
            )

    def schedule(self, time_s: float, what: str, workers: Collection[str]) -> None:
        for name in workers:
            self.simulation.at(
                time_s, lambda name=name: getattr(self.simulation, what)(f"home/{name}")
            )

    def run(self, samples: int = 2, every_s: float = 0.1) -> None:
        for sample in range(samples):
            frame = Captured(sample, 0.0, make_inputs(sample))
            self.simulation.at(
                SENT_S + sample * every_s,
                lambda frame=frame: self.simulation.capture(self.edge, frame),
            )
        self.simulation.run(SENT_S + samples * every_s + 1.2)
        assert self.simulation.failures == []
        assert self.inner.results.keys() == set(range(samples))

    @property
    def state(self) -> OffloadState:
        node = self.simulation.machine(self.edge)
        assert isinstance(node, OffloadNode)
        return node.state()

    def assert_result(self, sample: int, groups: Collection[int]) -> None:
        """The result has the portions of these groups, bit for bit, and says what it lacks."""
        computed, _ = self.inner.results[sample]
        lost = set(range(len(self.site.members))).difference(groups)
        expected = self.site.compute(make_inputs(sample), groups)
        for name, array in expected.items():
            assert np.array_equal(computed.outputs[name], array), name
        if not lost:
            assert computed.shortfall is None
            return
        assert computed.shortfall.missing == self.site.list_members(lost)
        mask = sum(1 << group for group in lost)
        assert computed.shortfall.accuracy == self.site.detail.accuracy[str(mask)]
