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
import tempfile
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

from benchmarks import report as reports
from benchmarks.bare import connect
from benchmarks.hierarchy import ALWAYS, NEVER, Listener, variant
from ddnn.adapters import broker as brokers
from ddnn.adapters.litert import LiteRtSection
from ddnn.cli.demo import Plan, Site, prepare
from ddnn.core.section import Section
from ddnn.exits.cloud_node import CloudNode, StoreNode
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.timing import Timing
from ddnn.protocol.machine import Captured, Effect, Event, Machine, Now, Publish, Received
from ddnn.protocol.messages import Answer, RoleName
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.bundle import load_bundle
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Cores, Costs
from ddnn.runtime.simulation import Network, Simulation

RATE_HZ = 10.0
SITE, LISTENER = "demo", "listener"
DASHBOARD = "dashboard"
PING_BYTES = 300
TIMING = Timing(deadline_s=1.0, window_s=0.12)
START_S = 2.0


@dataclass(frozen=True, slots=True)
class Running:
    """What was measured of a running site."""

    latencies_ms: list[float]
    cpu_s: dict[str, float]  # by node, per sample


@dataclass(frozen=True, slots=True)
class Parts:
    """The measured profiles; seconds."""

    section_s: dict[str, float]
    hop: Network
    listener_s: float  # CPU time of the bare client per message
    cores: int


# ------------------------------------------------------------------ measure


def run_site(plan: Plan, seconds: float) -> Running:
    """Latencies and CPU time of the running hierarchy."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = Site(plan, "mosquitto", state, rate_hz=RATE_HZ, http_port=brokers.free_port())
        stack.callback(site.close)
        site.start()
        site.watcher.close()  # the listener below stands in its place
        listener = Listener(site.port, [topic_filter(Kind.ANSWER, SITE)])
        stack.callback(listener.close)
        time.sleep(2.0)
        nodes = {node: psutil.Process(site.fleet.pid(node)) for node in site.fleet.nodes}
        before, first = {node: cpu_s(process) for node, process in nodes.items()}, site.tick() + 1
        time.sleep(seconds)
        after, last = {node: cpu_s(process) for node, process in nodes.items()}, site.tick() + 1
        time.sleep(0.5)
        return Running(
            listener.latencies_ms(first, last, RATE_HZ),
            {node: (after[node] - before[node]) / (last - first) for node in nodes},
        )


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure_section(section: Any, times: int = 40) -> float:
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
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleet = Fleet(state)
        stack.callback(fleet.close)
        port = brokers.free_port()
        fleet.start("broker", brokers.command("mosquitto", port, state))
        brokers.wait_until_listening(port)
        arrived = threading.Event()
        client = connect("ping", port, ["ping"])
        client.on_message = lambda *_: arrived.set()
        client.loop_start()
        stack.callback(client.loop_stop)
        stack.callback(client.disconnect)
        time.sleep(0.5)
        trips_s, cpu = [], []
        for _ in range(times):
            time.sleep(1 / RATE_HZ)
            arrived.clear()
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            client.publish("ping", bytes(PING_BYTES))
            if not arrived.wait(5.0):
                raise SystemExit("the broker does not send a message back")
            trips_s.append(time.perf_counter() - began_s)
            cpu.append(time.process_time() - cpu_began_s)
    # Robust against round trips that other programs delayed: the least and the median of an
    # exponential distribution give its mean.
    hops_s = np.maximum(np.asarray(trips_s) - np.median(cpu), 0.0) / 2
    least_s, median_s = float(hops_s.min()), float(np.median(hops_s))
    network = Network(latency_s=least_s, jitter_s=(median_s - least_s) / math.log(2))
    return network, float(np.median(cpu)) / 2


# ----------------------------------------------------------------- simulate


class Counted:
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


class AnswerTimes:
    """Receives answers; when each one came."""

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
    plan: Plan, parts: Parts, message_s: Mapping[str, float], samples: int
) -> tuple[list[float], dict[str, float]]:
    """Latencies (ms) of the site in virtual time, and messages in and out per sample by node.

    message_s: what one message costs each node.
    """
    bundle = load_bundle(plan.bundle, LiteRtSection, list(plan.manifest.sections))
    manifest, hierarchy = bundle.manifest, bundle.manifest.hierarchy
    simulation = Simulation(np.random.default_rng(1), parts.hop)
    cores, messages, listener = Cores(parts.cores), Counter[str](), AnswerTimes()

    def add(node: str, role: RoleName, machine: Machine) -> str:
        seconds = message_s.get(node, 0.0)
        return simulation.add(
            Identity(SITE, node, role, bundle.id, ""),
            lambda _: Counted(machine, messages, node),
            bundle.sections,
            costs=Costs(section_s=parts.section_s, receive_s=seconds, send_s=seconds),
            cores=cores,
        )

    add(LISTENER, "store", listener)
    add(DASHBOARD, "store", StoreNode(SITE))
    add(CLOUD, "cloud", CloudNode(SITE, CLOUD, bundle.id, manifest, TIMING))
    for group in hierarchy.edges:
        add(group.id, "edge", EdgeNode(SITE, group.id, bundle.id, manifest, TIMING))
    images = np.load(plan.frames / "images.npy", mmap_mode="r", allow_pickle=False)
    for view, device in enumerate(hierarchy.devices):
        machine = DeviceNode(SITE, device, bundle.id, manifest, TIMING)
        name = add(device, "device", machine)
        for sample in range(samples):
            at_s = START_S + sample / RATE_HZ
            image = images[sample % len(images), view]
            frame = Captured(sample, Simulation.WALL_S + at_s, {"image": image})
            simulation.at(at_s, lambda name=name, frame=frame: simulation.capture(name, frame))  # type: ignore[misc]
    simulation.run(START_S + samples / RATE_HZ + 3.0)
    if simulation.failures:
        raise SystemExit(simulation.failures[0])
    latencies = [1e3 * (s - START_S - n / RATE_HZ) for n, s in listener.arrived_s.items()]
    return latencies, {node: count / samples for node, count in messages.items()}


def message_costs(
    cpu: Mapping[str, float], messages: Mapping[str, float], own_s: Mapping[str, float]
) -> dict[str, float]:
    """Seconds per message: a node's CPU time per sample, less its section's, by its messages."""
    return {
        node: max(cpu[node] - own_s.get(node, 0.0), 0.0) / count
        for node, count in messages.items()
        if node in cpu and count
    }


def compare(plan: Plan, parts: Parts, tier: str, seconds: float) -> dict[str, Any]:
    """Both medians of one exit, and what was given to the simulation."""
    running = run_site(plan, seconds)
    samples = len(running.latencies_ms)
    _, messages = simulate(plan, parts, {}, samples)
    devices = plan.manifest.hierarchy.devices
    runs = parts.section_s if tier == "cloud" else {d: parts.section_s[d] for d in devices}
    costs = message_costs(running.cpu_s, messages, runs)
    costs[LISTENER] = parts.listener_s
    simulated, _ = simulate(plan, parts, costs, samples)
    p50, simulated_p50 = float(np.median(running.latencies_ms)), float(np.median(simulated))
    return {
        "samples": samples,
        "p50_ms": round(p50, 3),
        "simulated_p50_ms": round(simulated_p50, 3),
        "ratio": round(simulated_p50 / p50, 2),
        "cpu_ms_per_sample": {n: round(1e3 * s, 3) for n, s in running.cpu_s.items()},
        "message_ms": {node: round(1e3 * cost, 4) for node, cost in costs.items()},
    }


def main() -> None:
    parser = reports.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="per exit [20]")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--bundle", type=Path, default=None)
    arguments = parser.parse_args()
    reports.ended_cleanly()
    plan = prepare(arguments.data, 6, "e", arguments.bundle, 0)
    sections: Mapping[str, Section] = load_bundle(
        plan.bundle, LiteRtSection, list(plan.manifest.sections)
    ).sections
    hop, listener_s = measure_hop()
    parts = Parts(
        {name: measure_section(section) for name, section in sections.items()},
        hop,
        listener_s,
        psutil.cpu_count() or 1,
    )
    result: dict[str, Any] = {
        **reports.header("simulated_latency"),
        "rate_hz": RATE_HZ,
        "hop_ms": {
            "least": round(1e3 * hop.latency_s, 3),
            "mean": round(1e3 * (hop.latency_s + hop.jitter_s), 3),
        },
        "section_ms": {name: round(1e3 * s, 4) for name, s in parts.section_s.items()},
    }
    with tempfile.TemporaryDirectory() as directory:
        for tier, threshold in (("local", ALWAYS), ("cloud", NEVER)):
            bundle = variant(plan.bundle, Path(directory) / tier, threshold)
            forced = Plan(plan.manifest, bundle, plan.frames, plan.labels)
            result[tier] = compare(forced, parts, tier, arguments.seconds)
    result["load_average"] = round(psutil.getloadavg()[0], 1)
    result["niceness"] = psutil.Process().nice()
    reports.show(result, one_line=arguments.json)


if __name__ == "__main__":
    main()
