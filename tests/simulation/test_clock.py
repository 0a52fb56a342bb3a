"""Devices whose wall clocks disagree learn one site time, over a network that delays and loses."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.core.ids import tick_of
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.machines.clock import SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.protocol.machine import Now
from ddnn.runtime.identity import Identity
from ddnn.runtime.simulation import Network, Simulation
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
