"""The processes of benchmarks/coding/stragglers.py: workers with delays, and one that gathers.

worker   the product's worker: machine, loop, sections, broker connection. A wrapper of its sections
         sleeps before each product: a fixed time and an exponential one, by a seed. Two workers in
         one process: of a shard of the coded layer, and, for the first k workers, of a block of the
         uncoded one.
gather   the product's offload node, three times: one that decodes the first results that suffice,
         one that waits for all, and one of the uncoded layer, which needs all. Each task goes to
         the three in turn, and the next begins when all results of the last one have come. The
         delays of a task are the same for all three.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.processes import read_options
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.matrices import load_section
from ddnn.adapters.mqtt import MqttTransport
from ddnn.coding.combiner import CodingCombiner
from ddnn.core.section import Array, Arrays, Section
from ddnn.errors import DdnnError
from ddnn.machines.offload_node import OffloadNode
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Effect,
    Event,
    Now,
    Received,
    SectionName,
)
from ddnn.protocol.topics import Kind, Topic
from ddnn.rooms import find_room
from ddnn.runtime.bundle import check_file, load_bundle, read_golden, read_manifest
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.plans import PlanDirectory, read_plan
from ddnn.runtime.service import find_ddnn_version
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.site_identity import Broker
from device_app.worker import Worker, open_worker

FIXED_S, MEAN_S = 0.005, 0.010
DRAWS = 100_000
WARM_UP_TASKS = 10  # before those that count
LOST_S = 3.0  # after it, a task is lost
MODES = ("first_k", "all_n", "uncoded")
STATS_EVERY_S = 60.0


class Options(msgspec.Struct, frozen=True):
    """What one process runs.

    coded, plain: directories of the plans of the coded and of the uncoded layer
    worker:       number of a worker, from 1; 0: this process gathers
    seconds, out: of gathering: for how long, and the file to write
    """

    site: str
    port: int
    bundle: str
    coded: str
    plain: str
    seed: int
    worker: int = 0
    seconds: float = 10.0
    out: str = ""


def draw_delays_s(seed: int, worker: int) -> NDArray[np.float64]:
    """What worker number `worker` sleeps, by task."""
    random = np.random.default_rng([seed, worker])
    return FIXED_S + random.exponential(MEAN_S, DRAWS)


class DelayedSection:
    """A section that sleeps first. Each delay serves `times` calls, one after the other."""

    def __init__(self, section: Section, delays: NDArray[np.float64], times: int) -> None:
        self._section, self._delays, self._times = section, delays, times
        self._example = section.example()
        self._calls = 0

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        if inputs is self._example:  # to warm up
            time.sleep(FIXED_S)
        else:
            time.sleep(self._delays[self._calls // self._times])
            self._calls += 1
        return self._section(inputs)

    def example(self) -> dict[str, Array]:
        return self._example


def run_worker(options: Options) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    delays = draw_delays_s(options.seed, options.worker)
    node = f"worker{options.worker}"
    bundle = read_manifest(Path(options.bundle))[1]
    loops = []
    for site, plan, times in (
        (options.site, options.coded, 2),
        (f"{options.site}-plain", options.plain, 1),
    ):
        if node not in read_plan(Path(plan), bundle).placement:
            continue
        settings = NodeSettings(
            node=node,
            bundle=options.bundle,
            site=site,
            broker_port=options.port,
            mqtt="5",
            stats_every_s=STATS_EVERY_S,
        )
        worker = open_worker(settings, plan, bundle)

        def load(name: SectionName, worker: Worker = worker, times: int = times) -> Section:
            return DelayedSection(worker.load(name), delays, times)

        loops.append(
            Loop(
                Identity(site, node, "worker", bundle, find_ddnn_version()),
                worker.machine,
                MqttTransport.of(settings),
                Resources(load=load, find_plan=worker.find_plan),
                stats_every_s=STATS_EVERY_S,
            )
        )
    for loop in loops:
        loop.start()
    stop.wait()
    for loop in loops:
        loop.close()


class SectionTimer:
    """A machine that has its section computed for every frame and measures how long that takes."""

    def __init__(self, section: str) -> None:
        self._section = section
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.asked_s = 0.0
        self.answer: tuple[float, Arrays | None] | None = None  # seconds, outputs

    def subscriptions(self) -> list[str]:
        return []

    def deadline_s(self) -> float | None:
        return None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Captured(sample, _, features):
                self.answer, self.asked_s = None, time.perf_counter()
                return [Compute(("ask", sample), self._section, features)]
            case Computed(("ask", _)):
                self.answer = (time.perf_counter() - self.asked_s, event.outputs)
        return []


class AlternatingMachine:
    """The machine that passes each task to the offload nodes of all modes in turn."""

    def __init__(
        self,
        nodes: dict[str, OffloadNode],
        timers: dict[str, SectionTimer],
        pieces: dict[str, int],
        features: Array,
        undivided: Section,
    ) -> None:
        self._nodes, self._timers, self._pieces = nodes, timers, pieces
        self._features, self._undivided = features, undivided
        self.took_s: dict[str, list[float]] = {mode: [] for mode in nodes}
        self.lost = self.wrong = 0
        self.error = 0.0
        self._task = -1
        self._mode = ""  # under way
        self._results = 0
        self._due_s: float | None = None

    @property
    def counts(self) -> dict[str, int]:
        return {}

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    @property
    def tasks(self) -> int:
        return len(self.took_s[MODES[-1]])

    def subscriptions(self) -> list[str]:
        return sorted({text for node in self._nodes.values() for text in node.subscriptions()})

    def deadline_s(self) -> float | None:
        times = [node.deadline_s() for node in self._nodes.values()] + [self._due_s]
        return min((time_s for time_s in times if time_s is not None), default=None)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for mode, node in self._nodes.items():
            if self._concerns(event, mode, node):
                effects += node.handle(event, now)
        if isinstance(event, Received) and event.topic.kind is Kind.RESULT:
            self._results += 1
        return effects + self._continue(now)

    def _concerns(self, event: Event, mode: str, node: OffloadNode) -> bool:
        match event:
            case Computed() | Received(Topic(_, Kind.RESULT)):
                return mode == self._mode
            case Received(topic):
                return topic.site == node.site
        return True

    def _continue(self, now: Now) -> list[Effect]:
        """Start the next task where the last one has ended or is lost."""
        if not self._mode:
            if not self._are_workers_live():
                return []
        else:
            answer = self._timers[self._mode].answer
            all_in = answer is not None and self._results >= self._pieces[self._mode]
            if not all_in and (self._due_s is None or now.monotonic_s < self._due_s):
                return []
            self._record(answer if all_in else None)
        at = (MODES.index(self._mode) + 1) % len(MODES) if self._mode else 0
        self._mode, self._results = MODES[at], 0
        self._task += at == 0
        self._due_s = now.monotonic_s + LOST_S
        frame = self._features[self._task % len(self._features)]
        asked = Captured(self._task, now.wall_s, {"features": frame})
        return self._nodes[self._mode].handle(asked, now)

    def _are_workers_live(self) -> bool:
        return all(
            node.gauges["live_pieces"] == self._pieces[mode] for mode, node in self._nodes.items()
        )

    def _record(self, answer: tuple[float, Arrays | None] | None) -> None:
        took_s, outputs = answer or (float("nan"), None)
        if outputs is None:
            self.lost += 1
            self.took_s[self._mode].append(float("nan"))
            return
        self.took_s[self._mode].append(took_s)
        frame = self._features[self._task % len(self._features)]
        scores, expected = outputs["scores"], self._undivided({"features": frame})["scores"]
        self.wrong += int(np.argmax(scores) != np.argmax(expected))
        self.error = max(self.error, float(np.abs(scores - expected).max()))


def run_gather(options: Options) -> None:
    bundle = load_bundle(Path(options.bundle), LiteRtSection, [])
    paths = {"first_k": options.coded, "all_n": options.coded, "uncoded": options.plain}
    directories = {
        mode: PlanDirectory(Path(path), bundle.id, load_section, find_room)
        for mode, path in paths.items()
    }
    plans = {mode: directory.read() for mode, directory in directories.items()}
    edge = plans["first_k"].group
    timers = {mode: SectionTimer(edge) for mode in MODES}
    nodes = {
        mode: OffloadNode(
            timers[mode],
            f"{options.site}-plain" if mode == "uncoded" else options.site,
            plan,
            CodingCombiner,
            threshold_s=LOST_S if mode == "all_n" else 0.0,
            timeout_s=LOST_S,
            compute_here=False,
            stopwatch=time.perf_counter,
        )
        for mode, plan in plans.items()
    }
    owned = {
        plan.key(name): directories[mode].load(plan.key(name))
        for mode, plan in plans.items()
        for name in plan.owned
    }
    undivided = load_bundle(Path(options.bundle), LiteRtSection, [edge]).sections[edge]
    golden = read_golden(check_file(Path(options.bundle), bundle.manifest.golden))
    machine = AlternatingMachine(
        nodes,
        timers,
        {mode: len(plan.pieces) for mode, plan in plans.items()},
        golden[f"{edge}/in/features"],
        undivided,
    )
    loop = Loop(
        Identity(options.site, edge, "edge", bundle.id, find_ddnn_version()),
        machine,
        MqttTransport(f"{options.site}-gather", [Broker("127.0.0.1", options.port)], "5"),
        Resources(owned),
        stats_every_s=STATS_EVERY_S,
    )
    loop.start()
    while machine.tasks < WARM_UP_TASKS:
        check_and_sleep(loop)
    until_s = time.monotonic() + options.seconds
    while time.monotonic() < until_s:
        check_and_sleep(loop)
    loop.close()
    counted = slice(WARM_UP_TASKS, machine.tasks)
    took_s = {mode: seconds[counted] for mode, seconds in machine.took_s.items()}
    found = {"lost": machine.lost, "wrong": machine.wrong, "error": machine.error}
    Path(options.out).write_text(json.dumps({**found, "took_s": took_s}))


def check_and_sleep(loop: Loop) -> None:
    if loop.failed is not None:
        raise DdnnError(f"the machine failed: {loop.failed}")
    time.sleep(0.05)


def main() -> None:
    options = read_options(Options)
    (run_worker if options.worker else run_gather)(options)


if __name__ == "__main__":
    main()
