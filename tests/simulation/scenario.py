"""One or several sites in the simulation, with frames captured at every tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.exits.cloud_node import CloudNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.manifest import Manifest
from ddnn.exits.timing import Timing
from ddnn.protocol.machine import Captured, Machine
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.simulation.small_hierarchy import BUNDLE, CLASSES, IMAGE

PERIOD_S = 0.1
TIMING = Timing()


@dataclass
class Scenario:
    simulation: Simulation
    manifest: Manifest
    images: np.ndarray  # [samples, devices, h, w, 3]
    labels: np.ndarray

    def node(self, name: str, site: str = "home") -> str:
        return f"{site}/{name}"

    def run(self, start_s: float = 1.0, sites: tuple[str, ...] = ("home",), settle_s: float = 8.0):
        """Capture every sample on every device, then run for `settle_s` more."""
        for n in range(len(self.images)):
            for site in sites:
                for i, device in enumerate(self.manifest.hierarchy.devices):
                    self._capture_at(start_s + n * PERIOD_S, f"{site}/{device}", n, i)
        self.simulation.run(start_s + len(self.images) * PERIOD_S + settle_s)
        assert self.simulation.failures == []

    def _capture_at(self, time_s: float, name: str, sample: int, view: int) -> None:
        def capture() -> None:
            self.simulation.capture(
                name,
                Captured(
                    sample,
                    Simulation.WALL_S + time_s,
                    {"image": self.images[sample, view]},
                    int(self.labels[sample]),
                ),
            )

        self.simulation.at(time_s, capture)


def build_scenario(
    manifest: Manifest,
    sections,
    *,
    samples: int = 40,
    seed: int = 3,
    network: Network | None = None,
    sites: tuple[str, ...] = ("home",),
    skew_s: float = 0.0,
    timing: Timing = TIMING,
    wrap: Callable[[Machine], Machine] = lambda edge: edge,
    device: DeviceProfile | None = None,
    costs: Costs | None = None,
) -> Scenario:
    """Make a scenario of a broker, a cloud for all sites, and each site's edges and devices.

    wrap: converts an edge's machine to the one that runs. device, costs: those of every node.
    """
    generator = np.random.default_rng(seed)
    simulation = Simulation(np.random.default_rng(seed + 1), network)
    hierarchy = manifest.hierarchy
    cloud_at, served = (sites[0], sites[0]) if len(sites) == 1 else (EVERYWHERE, "+")
    simulation.add(
        Identity(cloud_at, "cloud", "cloud", BUNDLE, ""),
        lambda pending: CloudNode(served, "cloud", BUNDLE, manifest, timing),
        {"cloud": sections["cloud"]},
        device=device,
        costs=costs,
    )
    for site in sites:
        for group in hierarchy.edges:
            simulation.add(
                Identity(site, group.id, "edge", BUNDLE, ""),
                lambda pending, site=site, edge=group.id: wrap(
                    EdgeNode(site, edge, BUNDLE, manifest, timing, pending)
                ),
                sections,
                device=device,
                costs=costs,
            )
        for i, node in enumerate(hierarchy.devices):
            simulation.add(
                Identity(site, node, "device", BUNDLE, ""),
                lambda pending, site=site, node=node: DeviceNode(
                    site, node, BUNDLE, manifest, timing, pending
                ),
                sections,
                device=device,
                costs=costs,
                wall_offset_s=skew_s * i,
            )
    images = generator.integers(0, 256, (samples, len(hierarchy.devices), *IMAGE), np.uint8)
    labels = generator.integers(0, len(CLASSES), samples)
    return Scenario(simulation, manifest, images, labels)
