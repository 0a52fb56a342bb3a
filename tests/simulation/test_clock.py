"""Devices whose wall clocks disagree learn one site time, over a network that delays and loses."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.core.ids import tick_of
from ddnn.core.site_time import SiteTime, find_sample_id
from ddnn.exits.cloud_node import CloudNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.machines.clock import SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.protocol.machine import Captured, Now
from ddnn.protocol.messages import Answer
from ddnn.runtime.identity import Identity
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.simulation.scenario import PERIOD_S, TIMING
from tests.simulation.small_hierarchy import BUNDLE, make_hierarchy, make_manifest, make_sections

SKEWS_S = {"cam1": 0.0, "cam2": 0.43, "cam3": -3.0, "cam4": -1.7e9}  # the last: no clock at all


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_devices_give_one_instant_the_same_sample_number(loss: float) -> None:
    manifest = make_manifest(make_hierarchy("e", 4))
    sections = make_sections(manifest)
    network = Network(latency_s=0.002, jitter_s=0.003, loss=loss)
    simulation = Simulation(np.random.default_rng(4), network)
    clocks: dict[str, SiteClock] = {}

    def device(node: str) -> CompositeMachine:
        clocks[node] = SiteClock("home", node)
        machine = DeviceNode("home", node, BUNDLE, manifest, TIMING)
        return CompositeMachine(machine, clocks[node])

    simulation.add(
        Identity("home", "edge", "edge", BUNDLE, ""),
        lambda pending: EdgeNode("home", "edge", BUNDLE, manifest, TIMING, pending),
        sections,
    )
    for node, skew_s in SKEWS_S.items():
        simulation.add(
            Identity("home", node, "device", BUNDLE, ""),
            lambda pending, node=node: device(node),
            sections,
            wall_offset_s=skew_s,
        )
    simulation.run(60.0)
    assert simulation.failures == []
    now_s = simulation.now_s
    true_s = Simulation.WALL_S + now_s
    ticks = set()
    for node, skew_s in SKEWS_S.items():
        site_s = clocks[node].time_s(Now(now_s, true_s + skew_s))
        assert abs(site_s - true_s) < 0.01, node
        assert clocks[node].gauges["clock_skew_s"] == pytest.approx(skew_s, abs=0.01)
        ticks.add(tick_of(site_s + PERIOD_S / 2, PERIOD_S))  # in the middle of a tick
    assert len(ticks) == 1


DAY_S = 86400.0


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("step_s", [-10.0, -30 * DAY_S, 60 * DAY_S])
def test_every_sample_has_an_answer_of_its_own_whatever_the_leads_clock_does(
    step_s: float, restart: bool
) -> None:
    """The lead edge's clock is set after 6 s, and is right again after 12 s."""
    manifest = make_manifest(make_hierarchy("e", 4))
    sections = make_sections(manifest)
    simulation = Simulation(np.random.default_rng(4), Network(latency_s=0.002))
    clocks: dict[str, SiteClock] = {}
    captured: dict[str, list[int]] = {node: [] for node in manifest.hierarchy.devices}
    image = np.zeros(manifest.image_shape, np.uint8)

    def start_device(node: str, kept: SiteTime | None) -> CompositeMachine:
        clocks[node] = SiteClock("home", node, kept, simulation.now_s)
        machine = DeviceNode("home", node, BUNDLE, manifest, TIMING)
        return CompositeMachine(machine, clocks[node])

    def start_edge(pending: list[Answer]) -> EdgeNode:
        kept = simulation.find_kept_time("home/edge")
        return EdgeNode("home", "edge", BUNDLE, manifest, TIMING, pending, kept)

    def start_cloud(pending: list[Answer]) -> CloudNode:
        return CloudNode("home", "cloud", BUNDLE, manifest, TIMING)

    def capture() -> None:
        now = Now(simulation.now_s, Simulation.WALL_S + simulation.now_s)
        for node, clock in clocks.items():
            time = clock.read(now)
            # In the middle of a tick, so that errors of a few milliseconds change no tick.
            time = time._replace(time_s=time.time_s + PERIOD_S / 2)
            sample = find_sample_id(time, PERIOD_S)
            captured[node].append(sample)
            frame = Captured(sample, time.time_s, {"image": image})
            simulation.capture(f"home/{node}", frame)

    def set_clock(offset_s: float) -> None:
        if restart:
            simulation.crash("home/edge")
        simulation.set_clock("home/edge", offset_s)
        if restart:
            simulation.start("home/edge")

    simulation.add(Identity("home", "edge", "edge", BUNDLE, ""), start_edge, sections)
    simulation.add(Identity("home", "cloud", "cloud", BUNDLE, ""), start_cloud, sections)
    for node in captured:
        simulation.add(
            Identity("home", node, "device", BUNDLE, ""),
            lambda pending, node=node: start_device(node, None),
            sections,
        )
    for tick in range(160):
        simulation.at(2.0 + tick * PERIOD_S, capture)
    simulation.at(6.02, lambda: set_clock(step_s))
    simulation.at(12.02, lambda: set_clock(0.0))
    simulation.run(40.0)
    assert simulation.failures == []
    samples = {sample for numbers in captured.values() for sample in numbers}
    for node, numbers in captured.items():
        repeated = len(numbers) - len(set(numbers))
        assert repeated <= 2, (node, repeated)  # where the offset changes by parts of a period
    stored = {sample for _, sample in simulation.journal.store}
    assert stored == samples
