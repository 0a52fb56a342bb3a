"""A site with cameras that choose their ticks as real ones do, and an edge of limited speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np

from ddnn.core.pace import Pace, PaceHistory
from ddnn.exits.cloud_node import CloudNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.machines.clock import OnSiteTime, SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.protocol.machine import Now
from ddnn.protocol.messages import Answer, PaceCommand
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Cores, Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from device_app.sources import Frame
from device_app.ticks import StoredFrames
from tests.simulation.scenario import TIMING
from tests.simulation.small_hierarchy import (
    BUNDLE,
    IMAGE,
    make_hierarchy,
    make_manifest,
    make_sections,
)

START_S = 3.0  # of the cameras, which know the site's time by then
NO_TIME = Costs(any_section_s=0.0)


class Scene:
    """Frames that all show the same."""

    preloaded = True

    def __init__(self, view: int) -> None:
        self._image = np.random.default_rng(view).integers(0, 256, IMAGE).astype(np.uint8)

    def read_frame(self, tick: int) -> Frame:
        return Frame(self._image, 0)


class Listener:
    """Records the commands of the pace."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.pace = PaceHistory()

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.PACE, "home")]

    def deadline_s(self) -> None:
        return None

    def handle(self, event: Any, now: Now) -> list[Any]:
        if isinstance(getattr(event, "message", None), PaceCommand):
            self.pace = self.pace.add(Pace(event.message.share, event.message.since), 10**6)
        return []


@dataclass
class OverloadSite:
    """Configuration `letter`; all samples exit at the local exit, or `thresholds` says where.

    edge, cameras: the time of their work. cores: of a computer that all nodes share.
    """

    rate_hz: float
    edge: Costs = NO_TIME
    cameras: Costs = NO_TIME
    letter: str = "c"
    devices: int = 3
    thresholds: dict[str, float] = field(default_factory=dict)
    cores: int | None = None
    network: Network = field(default_factory=lambda: Network(latency_s=0.001))

    def __post_init__(self) -> None:
        manifest = make_manifest(make_hierarchy(self.letter, self.devices))  # type: ignore[arg-type]
        sections = make_sections(manifest)
        thresholds = {**dict.fromkeys(manifest.thresholds, 1.0), **self.thresholds}
        self.manifest = manifest = msgspec.structs.replace(manifest, thresholds=thresholds)
        self.simulation = Simulation(np.random.default_rng(1), self.network)
        self.captured: set[int] = set()
        self._listener = Listener()
        shared = Cores(self.cores) if self.cores else None

        def add(node: str, role: Any, build: Callable[[Any], Any], costs: Costs) -> str:
            identity = Identity("home", node, role, BUNDLE, "")
            return self.simulation.add(identity, build, sections, costs=costs, cores=shared)

        add("watch", "store", lambda pending: self._listener, NO_TIME)
        add("edge", "edge", self._make_edge, self.edge)
        cloud = CloudNode("home", "cloud", BUNDLE, manifest, TIMING)
        add("cloud", "cloud", lambda pending: cloud, NO_TIME)
        for view, node in enumerate(manifest.hierarchy.devices):
            clock = SiteClock("home", node)
            device = DeviceNode("home", node, BUNDLE, manifest, TIMING)
            machine = CompositeMachine(OnSiteTime(device, clock), clock)
            name = add(node, "device", lambda pending, m=machine: m, self.cameras)
            camera = partial(self._make_camera, view, device, clock)
            self.simulation.at(START_S, partial(self._take, name, camera, camera(), self.rate_hz))

    def _make_edge(self, pending: Any) -> EdgeNode:
        kept = self.simulation.find_kept_time("home/edge")
        self._edge = EdgeNode("home", "edge", BUNDLE, self.manifest, TIMING, pending, kept)
        return self._edge

    # --------------------------------------------------------------------- the run

    def run(self, seconds: float) -> None:
        """Run for so many seconds from START_S on, or further."""
        self.simulation.run(max(self.simulation.now_s, START_S) + seconds)
        assert self.simulation.failures == []

    def stop(self) -> None:
        """Stop the cameras, and wait until the last samples are answered."""
        self.rate_hz = 0.0
        self.run(TIMING.deadline_s + 3.0)

    def _make_camera(self, view: int, device: DeviceNode, clock: SiteClock) -> StoredFrames:
        def read_monotonic() -> float:
            return self.simulation.now_s

        def read_site_time() -> Any:
            now_s = self.simulation.now_s
            return clock.read(Now(now_s, Simulation.WALL_S + now_s))

        return StoredFrames(
            Scene(view), 1 / self.rate_hz, read_site_time, read_monotonic, pace=lambda: device.pace
        )

    def _take(
        self, name: str, make: Callable[[], StoredFrames], camera: StoredFrames, rate_hz: float
    ) -> None:
        """Take the frame that is due, and come back when the next one is."""
        if not self.rate_hz:
            return
        if self.rate_hz != rate_hz:
            camera, rate_hz = make(), self.rate_hz
        now_s = self.simulation.now_s
        if camera.due_s() <= now_s + 1e-9:
            frame = camera.take()
            self.captured.add(frame.sample)
            self.simulation.capture(name, frame)
        due_s = max(camera.due_s(), now_s + 1e-4)
        self.simulation.at(due_s, partial(self._take, name, make, camera, rate_hz))

    def vary_edge(self, until_s: float, spread: float, stall: float = 1.0) -> float:
        """Let the edge's time for a message vary every 0.05 s, as on a computer that does more.

        The factors are log-normal with this standard deviation, and one in 20 is `stall` times
        larger. Returns their mean."""
        generator = np.random.default_rng(2)
        edge = self.simulation.node("home/edge")
        factors = []
        for time_s in np.arange(START_S, START_S + until_s, 0.05):
            factors.append(generator.lognormal(0.0, spread))
            factors[-1] *= stall if generator.random() < 0.05 else 1.0
            costs = msgspec.structs.replace(self.edge, receive_s=factors[-1] * self.edge.receive_s)
            self.simulation.at(float(time_s), partial(setattr, edge, "costs", costs))
        return float(np.mean(factors))

    # ---------------------------------------------------------------- what happened

    @property
    def share(self) -> float:
        """The share of ticks that is taken now."""
        return self._edge.gauges["share_taken"]

    @property
    def counts(self) -> dict[str, int]:
        return self._edge.counts

    def list_answers(self, from_s: float, to_s: float) -> list[Answer]:
        """The answers to samples that were captured in this time after START_S."""
        first_s = Simulation.WALL_S + START_S
        stored = self.simulation.store.values()
        return [a for a in stored if from_s <= a.captured_at_s - first_s < to_s]

    def find_goodput_hz(self, from_s: float, to_s: float) -> float:
        """Full answers per second."""
        answers = self.list_answers(from_s, to_s)
        return sum(a.quality == "full" for a in answers) / (to_s - from_s)

    def list_missing(self, delay: int) -> list[int]:
        """The ticks between the first and the last sample that are neither shed nor answered.

        delay: in ticks, by which a camera may follow a command late
        """
        stored = {sample for _, sample in self.simulation.store}
        pace = self._listener.pace
        ticks = range(min(stored), max(stored))
        return [tick for tick in ticks if tick not in stored and pace.is_expected(tick, delay)]

    def list_unanswered(self) -> list[int]:
        """The samples that a camera took, that were not shed, and that have no answer."""
        stored = {sample for _, sample in self.simulation.store}
        return sorted(s for s in self.captured - stored if self._listener.pace.is_admitted(s))
