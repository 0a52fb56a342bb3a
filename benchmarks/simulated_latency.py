"""The simulation against the running hierarchy: latency from measured profiles.

    python -m benchmarks.simulated_latency --json

Runs a site of six devices, edge, cloud and dashboard at 10 samples/s, once with thresholds by which
every sample exits locally and once by which every sample goes to the cloud, and takes the median
time from the capture tick to the arrival of the answer at a listener. The simulation runs the same
machines, sections, frames and thresholds in virtual time. It is given nothing of those latencies,
only what was measured of the parts:

- a section call: CPU time, at the rate of the samples, so that caches are as cold;
- one message of each role: CPU time of its process per sample, less its sections', divided by the
  messages and frames that it takes in and sends out for one sample;
- one hop between a node and the broker: half the round trip of a bare client through the broker,
  less that client's CPU time;
- the cores of this machine, which all nodes share.

Other programs that want the CPU make the running site slower and are not simulated: the machine
must be idle, or these processes must have a higher priority (`niceness`, `load_average`).
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.harness.listener import Listener
from benchmarks.harness.processes import CpuMeter, interrupt_on_sigterm, temporary_directory
from benchmarks.harness.report import make_header, make_parser, print_report
from benchmarks.harness.sites import (
    EXIT_ALWAYS,
    EXIT_NEVER,
    running_broker,
    running_site,
    write_thresholds,
)
from benchmarks.hierarchy import AnswerTimes
from ddnn.adapters.litert import LiteRtSection
from ddnn.core.section import Section
from ddnn.errors import DdnnError, LinkError
from ddnn.exits.cloud_node import CloudNode, StoreNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.timing import Timing
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import DASHBOARD, SiteConfig
from ddnn.local_site.watcher import SITE
from ddnn.protocol.machine import (
    Captured,
    Effect,
    Event,
    Machine,
    Now,
    Publish,
    Received,
    SectionName,
)
from ddnn.protocol.messages import Answer, RoleName
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.bundle import load_bundle
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Cores, Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation

RATE_HZ = 10.0
LISTENER = "listener"
PING, PING_BYTES = "ping", 300
PING_S = 5.0  # the longest that a round trip through the broker may take
TIMING = Timing(deadline_s=1.0, window_s=0.12)
SETTLE_S = 2.0  # of a running site, before processor time is measured
START_S = 2.0  # virtual time of the first sample
END_S = 3.0  # after the last one


@dataclass(frozen=True, slots=True)
class Running:
    """What was measured of a running site."""

    took_s: list[float]  # from capture to answer, by sample
    cpu_s: dict[str, float]  # by node, per sample


@dataclass(frozen=True, slots=True)
class Parts:
    """The measured profiles; seconds."""

    section_s: Mapping[SectionName, float]
    hop: Network
    listener_s: float  # CPU time of the bare client per message
    cores: int


# ------------------------------------------------------------------ measure


def run_site(config: SiteConfig, seconds: float) -> Running:
    """Latencies and CPU time of the running hierarchy."""
    with ExitStack() as stack:
        site = stack.enter_context(running_site(config, rate_hz=RATE_HZ))
        site.watcher.close()  # the listener below takes its place
        times = AnswerTimes(site.port, RATE_HZ, bare=False)
        stack.callback(times.close)
        time.sleep(SETTLE_S)
        meter = CpuMeter({node: site.fleet.find_pid(node) for node in site.fleet.nodes})
        took_s = times.measure(seconds)
        cores = meter.busy_cores()
        return Running(took_s, {node: busy / RATE_HZ for node, busy in cores.items()})


def measure_section(section: Section, times: int = 40) -> float:
    """Median CPU time of a call, as cold as at the rate of the samples."""
    inputs, took_s = section.example(), []
    for _ in range(times):
        time.sleep(1 / RATE_HZ)
        began_s = time.process_time()
        section(inputs)
        took_s.append(time.process_time() - began_s)
    return float(np.median(took_s))


def measure_hop(times: int = 60) -> tuple[Network, float]:
    """How long one hop takes, and the CPU time per message of a bare client."""
    arrived = threading.Event()
    trips_s, cpu_s = [], []
    with ExitStack() as stack:
        _, port, _ = stack.enter_context(running_broker())
        client = Listener(PING, port, [PING], lambda *_: arrived.set()).start()
        stack.callback(client.close)
        time.sleep(0.5)
        for _ in range(times):
            time.sleep(1 / RATE_HZ)
            arrived.clear()
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            client.publish(PING, bytes(PING_BYTES))
            if not arrived.wait(PING_S):
                raise LinkError(f"the broker did not send a message back within {PING_S:g} s")
            trips_s.append(time.perf_counter() - began_s)
            cpu_s.append(time.process_time() - cpu_began_s)
    # Robust against round trips that other programs delayed: the least and the median of an
    # exponential distribution give its mean.
    hops_s = np.maximum(np.asarray(trips_s) - np.median(cpu_s), 0.0) / 2
    least_s, median_s = float(hops_s.min()), float(np.median(hops_s))
    network = Network(latency_s=least_s, jitter_s=(median_s - least_s) / math.log(2))
    return network, float(np.median(cpu_s)) / 2


# ----------------------------------------------------------------- simulate


class CountingMachine:
    """A machine whose messages and frames are counted, in and out."""

    def __init__(self, machine: Machine, total: Counter[str], node: str) -> None:
        self._machine, self._total, self._node = machine, total, node
        self.counts, self.gauges = machine.counts, machine.gauges
        self.subscriptions, self.deadline_s = machine.subscriptions, machine.deadline_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects = self._machine.handle(event, now)
        if now.monotonic_s >= START_S:
            self._total[self._node] += isinstance(event, Received | Captured)
            self._total[self._node] += sum(isinstance(effect, Publish) for effect in effects)
        return effects


class SimulatedListener:
    """Receives answers, and knows when the first to each sample came."""

    counts: Mapping[str, int] = {}
    gauges: Mapping[str, float] = {}

    def __init__(self) -> None:
        self.arrived_s: dict[int, float] = {}

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.ANSWER, SITE)]

    def deadline_s(self) -> float | None:
        return None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        if isinstance(event, Received) and isinstance(event.message, Answer):
            self.arrived_s.setdefault(event.message.sample, now.monotonic_s)
        return []


def simulate(
    config: SiteConfig, parts: Parts, message_s: Mapping[str, float], samples: int
) -> tuple[list[float], dict[str, float]]:
    """Seconds from capture to answer in virtual time, and messages in and out per sample by node.

    message_s: what one message costs each node.
    """
    bundle = load_bundle(config.bundle, LiteRtSection)
    manifest, hierarchy = bundle.manifest, bundle.manifest.hierarchy
    sections = dict[SectionName, Section](bundle.sections.items())
    simulation = Simulation(np.random.default_rng(1), parts.hop)
    cores, messages, listener = Cores(parts.cores), Counter[str](), SimulatedListener()

    def add(node: str, role: RoleName, machine: Machine) -> str:
        seconds = message_s.get(node, 0.0)
        return simulation.add(
            Identity(SITE, node, role, bundle.id, ""),
            lambda _: CountingMachine(machine, messages, node),
            sections,
            costs=Costs(section_s=parts.section_s, receive_s=seconds, send_s=seconds),
            cores=cores,
        )

    add(LISTENER, "store", listener)
    add(DASHBOARD, "store", StoreNode(SITE))
    add(CLOUD, "cloud", CloudNode(SITE, CLOUD, bundle.id, manifest, TIMING))
    for group in hierarchy.edges:
        add(group.id, "edge", EdgeNode(SITE, group.id, bundle.id, manifest, TIMING))
    images = np.load(config.frames / "images.npy", mmap_mode="r", allow_pickle=False)
    for view, device in enumerate(hierarchy.devices):
        machine = DeviceNode(SITE, device, bundle.id, manifest, TIMING)
        name = add(device, "device", machine)
        for sample in range(samples):
            at_s = START_S + sample / RATE_HZ
            image = images[sample % len(images), view]
            frame = Captured(sample, Simulation.WALL_S + at_s, {"image": image})
            simulation.at(at_s, lambda name=name, frame=frame: simulation.capture(name, frame))  # type: ignore[misc]
    simulation.run(START_S + samples / RATE_HZ + END_S)
    if simulation.failures:
        raise DdnnError(f"a simulated machine failed: {simulation.failures[0]}")
    took_s = [s - START_S - n / RATE_HZ for n, s in listener.arrived_s.items()]
    return took_s, {node: count / samples for node, count in messages.items()}


def divide_costs(
    cpu_s: Mapping[str, float],
    messages: Mapping[str, float],
    section_s: Mapping[SectionName, float],
) -> dict[str, float]:
    """Seconds per message: a node's CPU time per sample, less its section's, by its messages.

    section_s: of the nodes that run their section for every sample.
    """
    return {
        node: max(cpu_s[node] - section_s.get(node, 0.0), 0.0) / count
        for node, count in messages.items()
        if node in cpu_s and count
    }


def compare(config: SiteConfig, parts: Parts, tier: str, seconds: float) -> dict[str, Any]:
    """Both medians of one exit, and what was given to the simulation."""
    running = run_site(config, seconds)
    samples = len(running.took_s)
    _, messages = simulate(config, parts, {}, samples)
    devices = config.manifest.hierarchy.devices
    runs = {n: s for n, s in parts.section_s.items() if tier == "cloud" or n in devices}
    costs = divide_costs(running.cpu_s, messages, runs)
    costs[LISTENER] = parts.listener_s
    simulated, _ = simulate(config, parts, costs, samples)
    p50_ms, simulated_p50_ms = (1e3 * float(np.median(s)) for s in (running.took_s, simulated))
    return {
        "samples": samples,
        "p50_ms": round(p50_ms, 3),
        "simulated_p50_ms": round(simulated_p50_ms, 3),
        "ratio": round(simulated_p50_ms / p50_ms, 2),
        "cpu_ms_per_sample": {n: round(1e3 * s, 3) for n, s in running.cpu_s.items()},
        "message_ms": {node: round(1e3 * cost, 4) for node, cost in costs.items()},
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="per exit [20]")
    parser.add_argument("--data", default="scenes", help="data set of the bundle [scenes]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    config = prepare_site(arguments.data, bundle=arguments.bundle, seed=arguments.seed)
    sections = load_bundle(config.bundle, LiteRtSection).sections
    hop, listener_s = measure_hop()
    parts = Parts(
        {name: measure_section(section) for name, section in sections.items()},
        hop,
        listener_s,
        psutil.cpu_count() or 1,
    )
    report = {
        **make_header("simulated_latency"),
        "rate_hz": RATE_HZ,
        "hop_ms": {
            "least": round(1e3 * hop.latency_s, 3),
            "mean": round(1e3 * (hop.latency_s + hop.jitter_s), 3),
        },
        "section_ms": {name: round(1e3 * s, 4) for name, s in parts.section_s.items()},
    }
    with temporary_directory() as directory:
        for tier, threshold in (("local", EXIT_ALWAYS), ("cloud", EXIT_NEVER)):
            forced = write_thresholds(config, threshold, directory / tier)
            report[tier] = compare(forced, parts, tier, arguments.seconds)
    report["load_average"] = round(psutil.getloadavg()[0], 1)
    report["niceness"] = psutil.Process().nice()
    print_report(report, as_json=arguments.json)


if __name__ == "__main__":
    main()
