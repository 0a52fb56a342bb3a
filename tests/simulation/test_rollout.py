"""A site changes to another bundle while it runs: no sample is lost or answered by a mixture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

from ddnn.core.ids import tick_of
from ddnn.core.section import BundleKey
from ddnn.errors import ConfigError
from ddnn.exits.cloud_node import CloudNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.deployer import Deployer, State
from ddnn.machines.rollout import RolloutNode
from ddnn.protocol.machine import Captured
from ddnn.protocol.rollout_messages import PART_BYTES, BundleOrder
from ddnn.runtime.identity import Identity
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.simulation.scenario import TIMING
from tests.simulation.small_hierarchy import (
    BUNDLE,
    IMAGE,
    make_hierarchy,
    make_manifest,
    make_sections,
    run_undistributed,
)

NEXT = "cd34ef56"
RATE_HZ = 20.0
ARCHIVE = bytes(range(256)) * 800  # of several parts
PARTS = [ARCHIVE[i : i + PART_BYTES] for i in range(0, len(ARCHIVE), PART_BYTES)]
ORDER = BundleOrder(NEXT, hashlib.sha256(ARCHIVE).hexdigest(), len(ARCHIVE))
BEGIN_S, END_S = 3.0, 20.0


def negate(section: Any) -> Any:
    """The section with other scores."""

    def run(arrays: Any) -> Any:
        outputs = dict(section(arrays))
        outputs["scores"] = -outputs["scores"]
        return outputs

    return run


@dataclass
class Disk:
    """The library of a node, which lives on when the node is killed."""

    manifest: Any
    node: str
    bundles: set[str] = field(default_factory=lambda: {BUNDLE})
    in_use: str = BUNDLE
    broken: bool = False
    done_until_s: float = -math.inf

    def find(self, bundle: str) -> Any:
        return self.manifest if bundle in self.bundles else None

    def add(self, order: BundleOrder, archive: bytes) -> Any:
        if self.broken:
            raise ConfigError("no space left on the disk")
        assert archive == ARCHIVE
        self.bundles.add(order.bundle)
        return self.manifest

    def adopt(self, order: BundleOrder) -> None:
        self.in_use = order.bundle


class Sections(Mapping[Any, Any]):
    """The sections of both bundles, those of the bundle that the node started with by name."""

    def __init__(self, disk: Disk, by_bundle: Mapping[str, Mapping[str, Any]]) -> None:
        self._disk, self._by_bundle = disk, by_bundle
        self.started = disk.in_use

    def __getitem__(self, key: Any) -> Any:
        bundle, name = key if isinstance(key, BundleKey) else (self.started, key)
        assert bundle in self._disk.bundles
        return self._by_bundle[bundle][name]

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def __len__(self) -> int:
        return 1


class Site:
    """Devices, an edge and a cloud, each of which takes part in roll-outs."""

    def __init__(self, letter: str = "e", devices: int = 3, network: Network | None = None) -> None:
        self.manifest = make_manifest(make_hierarchy(letter, devices))  # type: ignore[arg-type]
        old = make_sections(self.manifest)
        self.sections = {BUNDLE: old, NEXT: {name: negate(old[name]) for name in old}}
        self.simulation = Simulation(np.random.default_rng(2), network or Network(latency_s=0.002))
        self.images = np.random.default_rng(3).integers(
            0, 256, (40, devices, *IMAGE), dtype=np.uint8
        )
        self.disks: dict[str, Disk] = {}
        hierarchy = self.manifest.hierarchy
        self.nodes = [*hierarchy.devices, *(group.id for group in hierarchy.edges), "cloud"]
        for node in self.nodes:
            role = "device" if node in hierarchy.devices else "edge" if node != "cloud" else node
            self._add(node, role)
        self.ticks: list[int] = []
        self.back: Deployer
        for n in range(int(RATE_HZ * END_S)):
            self._capture_at(1.0 + n / RATE_HZ)
        self.simulation.at(BEGIN_S, self.begin)

    def _add(self, node: str, role: Any) -> None:
        disk = self.disks[node] = Disk(self.manifest, node)
        sections = Sections(disk, self.sections)

        def build(pending: Any) -> CompositeMachine:
            sections.started = started = disk.in_use
            machine: Any
            if role == "device":
                machine = DeviceNode("home", node, started, self.manifest, TIMING, pending)
            elif role == "edge":
                kept = self.simulation.find_kept_time(f"home/{node}")
                machine = EdgeNode("home", node, started, self.manifest, TIMING, pending, kept)
            else:
                machine = CloudNode("home", node, started, self.manifest, TIMING)
            rollout = RolloutNode("home", node, machine.versions, machine.make_version, disk)
            return CompositeMachine(machine, rollout)

        self.simulation.add(Identity("home", node, role, BUNDLE, ""), build, sections)

    def _capture_at(self, time_s: float) -> None:
        wall_s = Simulation.WALL_S + time_s
        tick = tick_of(wall_s, 1 / RATE_HZ)
        self.ticks.append(tick)
        for view, device in enumerate(self.manifest.hierarchy.devices):
            image = {"image": self.images[tick % 40, view]}
            capture = partial(
                self.simulation.capture, f"home/{device}", Captured(tick, wall_s, image, 0)
            )
            self.simulation.at(time_s, capture)

    def begin(self) -> None:
        """Begin the roll-out."""
        self.deployer = Deployer("home", ORDER, PARTS, self.nodes, "edge", wait_s=8.0)
        self.simulation.add(
            Identity("home", "laptop", "worker", "", ""), lambda pending: self.deployer
        )

    def run(self) -> None:
        self.simulation.run(END_S + 10.0)
        assert self.simulation.failures == []

    # -------------------------------------------------------------------- what holds

    def check_answers(self) -> None:
        """Every sample has an answer, of the bundle that it belongs to, of no mixture."""
        store = {sample: answer for (_, sample), answer in self.simulation.store.items()}
        assert sorted(store) == self.ticks
        since = self.deployer.since
        for tick, answer in store.items():
            allowed = {BUNDLE} if since is None or tick < since else {NEXT, BUNDLE}
            assert answer.bundle in allowed
            if answer.quality != "full":
                continue
            wanted = BUNDLE if since is None or tick < since else NEXT
            assert answer.bundle == wanted
            sections = self.sections[wanted]
            judgement = run_undistributed(self.manifest, sections, self.images[tick % 40])
            assert answer.probabilities == judgement.probabilities
            assert answer.exit == judgement.exit

    def list_bundles(self) -> set[str]:
        return {disk.in_use for disk in self.disks.values()}


@pytest.mark.parametrize("letter", ["c", "e", "f"])
def test_all_nodes_change_at_one_sample(letter: str) -> None:
    site = Site(letter, devices=4)
    site.run()
    assert (site.deployer.state, site.deployer.reason) == (State.DONE, "")
    site.check_answers()
    store = site.simulation.store.values()
    assert {answer.quality for answer in store} == {"full"}
    assert {answer.bundle for answer in store} == {BUNDLE, NEXT}
    assert site.list_bundles() == {NEXT}
    for node in site.nodes:  # the bundle before is freed
        machine: Any = site.simulation.machine(f"home/{node}")
        assert machine._parts[0].versions.list_live() == [NEXT]


@pytest.mark.parametrize("at_s", [BEGIN_S + 2.05, BEGIN_S + 2.3, BEGIN_S + 4.0, BEGIN_S + 4.6])
@pytest.mark.parametrize("node", ["cam1", "edge", "cloud"])
def test_a_node_that_is_killed_changes_when_it_is_back(node: str, at_s: float) -> None:
    site = Site()
    site.simulation.at(at_s, partial(site.simulation.crash, f"home/{node}"))
    site.simulation.at(at_s + 1.5, partial(site.simulation.start, f"home/{node}"))
    site.run()
    site.check_answers()
    assert site.deployer.state is State.DONE
    assert site.list_bundles() == {NEXT}
    last = [a for (_, sample), a in site.simulation.store.items() if sample > site.ticks[-40]]
    assert {(answer.bundle, answer.quality) for answer in last} == {(NEXT, "full")}


def test_a_node_that_is_away_changes_later() -> None:
    site = Site()
    site.simulation.at(2.0, partial(site.simulation.crash, "home/cam2"))
    site.simulation.at(12.0, partial(site.simulation.start, "home/cam2"))
    site.run()
    assert site.deployer.state is State.DONE
    assert site.list_bundles() == {NEXT}
    last = [a for (_, sample), a in site.simulation.store.items() if sample > site.ticks[-40]]
    assert {(answer.bundle, answer.quality) for answer in last} == {(NEXT, "full")}
    site.check_answers()


def test_where_one_node_cannot_all_stay() -> None:
    site = Site()
    site.disks["cam3"].broken = True
    site.run()
    assert site.deployer.state is State.FAILED
    assert "cam3: ConfigError: no space left on the disk" in site.deployer.reason
    assert site.list_bundles() == {BUNDLE}
    site.check_answers()
    assert {answer.quality for answer in site.simulation.store.values()} == {"full"}


def test_a_node_that_does_not_get_ready_in_time_is_named() -> None:
    site = Site()
    site.simulation.at(BEGIN_S + 2.05, partial(site.simulation.stall, "home/cam1"))
    site.run()
    assert site.deployer.state in (State.FAILED, State.DONE)
    if site.deployer.state is State.FAILED:
        assert "cam1" in site.deployer.reason
    site.check_answers()


def test_an_order_that_is_older_than_the_choice_of_a_bundle_is_done() -> None:
    site = Site()
    for disk in site.disks.values():
        disk.done_until_s = Simulation.WALL_S + END_S
    site.run()
    assert site.deployer.state is State.FAILED
    assert site.list_bundles() == {BUNDLE}
    site.check_answers()


def test_a_site_whose_cameras_stand_still_changes_at_once() -> None:
    """Also where an earlier roll-out has named a sample."""
    site = Site()

    def go_back() -> None:
        order = BundleOrder(BUNDLE, "0" * 64, 0)
        site.back = Deployer("home", order, [], site.nodes, "edge", wait_s=8.0)
        site.simulation.add(Identity("home", "phone", "worker", "", ""), lambda pending: site.back)

    site.simulation.at(END_S + 8.0, go_back)
    site.run()
    site.simulation.run(END_S + 30.0)
    assert site.simulation.failures == []
    assert (site.back.state, site.back.since) == (State.DONE, 0)
    assert site.list_bundles() == {BUNDLE}


def test_going_back_needs_no_archive() -> None:
    site = Site()

    def go_back() -> None:
        order = BundleOrder(BUNDLE, "0" * 64, 0)
        site.back = Deployer("home", order, [], site.nodes, "edge", wait_s=8.0)
        site.simulation.add(Identity("home", "phone", "worker", "", ""), lambda pending: site.back)

    site.simulation.at(12.0, go_back)
    site.run()
    assert site.back.state is State.DONE
    assert site.list_bundles() == {BUNDLE}
    since, back = site.deployer.since, site.back.since
    for (_, sample), answer in site.simulation.store.items():
        assert answer.quality == "full"
        assert answer.bundle == (NEXT if since <= sample < back else BUNDLE)
