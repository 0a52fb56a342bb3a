"""Response latency of the methods for unequal devices, by the room's model.

Devices of heterogeneity h differ in speed by the factor h, in equal ratios around the geometric
mean of the figures; their links by the factor that belongs to it. At h = 6 speeds are those of the
figures. Which link belongs to which speed is drawn; figures are means over the draws.

response_s: until the last portion is there when all devices answer. A redundant group has answered
with its first member; other methods wait for every device. with_outages_s: the mean when devices
fail independently. The source then waits until the deadline where a portion does not come, or
where, without redundancy, one device is silent. The deadline is the same for all methods,
DEADLINE_FACTOR times the slowest answer of any device.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.report import Progress
from benchmarks.students.methods import METHODS, OUTAGE, ROCOIN, Method
from benchmarks.students.scales import DEVICES, Scale
from ddnn.core.device import DeviceProfile
from ddnn.students import StudentType
from ddnn.students.outage import read_outage

FULL = 6  # the heterogeneity of the figures
DEADLINE_FACTOR = 1.5


class Figures(NamedTuple):
    """Least and largest speed and link of the devices."""

    flops_per_s: tuple[float, float]
    bits_per_s: tuple[float, float]


FIGURES = {
    "paper": Figures((5e6, 30e6), (500.0, 1000.0)),
    "pi": Figures((1e9, 6e9), (5e6, 20e6)),  # from a Pi Zero 2 to a Pi 4; Wi-Fi
}


def draw_devices(
    figures: Figures, heterogeneity: float, generator: np.random.Generator
) -> tuple[DeviceProfile, ...]:
    """DEVICES devices of this heterogeneity, cam1 the slowest."""
    share = np.log(heterogeneity) / np.log(FULL)  # of the figures' ratios
    speeds = _space_geometrically(figures.flops_per_s, share)
    links = generator.permutation(_space_geometrically(figures.bits_per_s, share))
    return tuple(
        DeviceProfile(
            f"cam{number}",
            float(speed),
            uplink_bits_per_s=float(link),
            outage_probability=OUTAGE,
        )
        for number, (speed, link) in enumerate(zip(speeds, links, strict=True), 1)
    )


def _space_geometrically(bounds: tuple[float, float], share: float) -> Any:
    """Values in equal ratios around the geometric mean of the bounds."""
    low, high = np.log(bounds)
    middle, half = (low + high) / 2, share * (high - low) / 2
    return np.exp(np.linspace(middle - half, middle + half, DEVICES))


def measure_latency(
    scale: Scale, types: tuple[StudentType, ...], filters: int, seed: int, progress: Progress
) -> dict[str, Any]:
    """Mean latencies by figures, heterogeneity and method, and where RoCoIn is the fastest.

    types: of students; filters: of the teacher
    """
    graph = np.ones((filters, filters))  # sizes of parts do not depend on it
    table: dict[str, Any] = {}
    steps = len(FIGURES) * len(scale.heterogeneities) * scale.draws
    done = 0
    for name, figures in FIGURES.items():
        table[name] = {}
        for heterogeneity in scale.heterogeneities:
            drawn = []
            for draw in range(scale.draws):
                generator = np.random.default_rng((seed, heterogeneity, draw))
                devices = draw_devices(figures, heterogeneity, generator)
                made = {of: make(devices, graph, types, seed) for of, make in METHODS.items()}
                drawn.append(rate_methods(made))
                done += 1
                progress(done / steps)
            table[name][f"{heterogeneity}x"] = {
                method: {
                    field: float(np.mean([one[method][field] for one in drawn]))
                    for field in drawn[0][method]
                }
                for method in METHODS
            }
    return table


def rate_methods(methods: dict[str, Method]) -> dict[str, dict[str, float]]:
    """Latencies of every method on the same devices."""
    deadline_s = DEADLINE_FACTOR * max(wait_for_all(method) for method in methods.values())
    return {
        name: {
            "response_s": answer(method, frozenset(), deadline_s),
            "with_outages_s": expect_latency(method, deadline_s),
        }
        for name, method in methods.items()
    }


def answer(method: Method, failed: frozenset[str], deadline_s: float) -> float:
    """Seconds until the source has what it waits for when these devices are silent."""
    if method.redundant:
        return min(method.plan.latency_s(failed), deadline_s)
    return deadline_s if failed else wait_for_all(method)


def wait_for_all(method: Method) -> float:
    """Seconds until every device has answered."""
    return method.plan.guaranteed_latency_s


def expect_latency(method: Method, deadline_s: float) -> float:
    """The mean over all sets of silent devices, each with the product of the outages."""
    devices = method.plan.devices
    total = 0.0
    for silent in product((False, True), repeat=len(devices)):
        chance = prod(
            read_outage(device) if gone else 1 - read_outage(device)
            for device, gone in zip(devices, silent, strict=True)
        )
        failed = frozenset(d.name for d, gone in zip(devices, silent, strict=True) if gone)
        total += chance * answer(method, failed, deadline_s)
    return total


def list_faster(table: dict[str, Any], field: str) -> dict[str, list[str]]:
    """By figures, the heterogeneities at which a RoCoIn is faster than every other method."""
    return {
        figures: [
            heterogeneity
            for heterogeneity, rows in of_figures.items()
            if min(rows[name][field] for name in ROCOIN)
            < min(rows[name][field] for name in rows if name not in ROCOIN)
        ]
        for figures, of_figures in table.items()
    }
