"""Workers whose answers are delayed, and who gathers them; see benchmarks/stragglers.py.

worker   the product's worker: machine, loop, sections, broker connection. What is wrapped around
         its sections sleeps before each product: a fixed time and an exponential one, by a seed.
         Two of them, in one process: a shard of the coded layer, and, for the first k workers,
         a block of the uncoded one.
gather   the product's sharing node, three times: one that decodes the first answers that suffice,
         one that waits for all, and one of the uncoded layer, which needs all. Each task goes to
         the three in turn, and the next begins when all answers to the last one are there. The
         delays of a task are the same for all three.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ddnn.coding.deployment import HEAD, TAIL
from ddnn.coding.sharing_node import SharingNode
from ddnn.runtime.deployment import read_plan
from device_app.lend import open_lending
from numpy.typing import NDArray

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.section import Arrays, Section
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Effect,
    Event,
    Now,
    Received,
)
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import checked_file, load_bundle, read_golden, read_manifest
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.service import ddnn_version
from ddnn.runtime.settings import NodeSettings

FIXED_S, MEAN_S = 0.005, 0.010
DRAWS = 100_000
WARM = 10  # tasks before those that count
PATIENCE_S = 3.0  # then a task is lost
MODES = ("first_k", "all_n", "uncoded")


def delays_s(seed: int, worker: int) -> NDArray[np.float64]:
    """What worker number `worker` sleeps, by task."""
    random = np.random.default_rng([seed, worker])
    return FIXED_S + random.exponential(MEAN_S, DRAWS)


class Delayed:
    """A section that sleeps first. Each delay serves `times` calls, one after the other."""

    def __init__(self, section: Section, delays: NDArray[np.float64], times: int) -> None:
        self._section, self._delays, self._times = section, delays, times
        self._example: dict[str, Any] = section.example()  # type: ignore[attr-defined]
        self._calls = 0

    def __call__(self, inputs: Arrays) -> Mapping[str, Any]:
        if inputs is self._example:  # to warm up
            time.sleep(FIXED_S)
        else:
            time.sleep(self._delays[self._calls // self._times])
            self._calls += 1
        return self._section(inputs)

    def example(self) -> dict[str, Any]:
        return self._example


def work(arguments: argparse.Namespace) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    delays = delays_s(arguments.seed, arguments.number)
    node = f"worker{arguments.number}"
    bundle = read_manifest(arguments.bundle)[1]
    loops = []
    for site, plan, times in (
        (arguments.site, arguments.coded, 2),
        (f"{arguments.site}-plain", arguments.plain, 1),
    ):
        if node not in read_plan(plan, bundle).deployment.workers:
            continue
        settings = NodeSettings(
            node=node,
            bundle=str(arguments.bundle),
            site=site,
            broker_port=arguments.port,
            mqtt="5",
            stats_every_s=60.0,
        )
        lending = open_lending(settings, str(plan), bundle)

        def load(name: str, load: Any = lending.load, times: int = times) -> Section:
            return Delayed(load(name), delays, times)

        loops.append(
            Loop(
                Identity(site, node, "worker", bundle, ddnn_version()),
                lending.machine,
                MqttTransport.of(settings),
                Resources(load=load),
                stats_every_s=60.0,
            )
        )
    for loop in loops:
        loop.start()
    stop.wait()
    for loop in loops:
        loop.close()


class Asker:
    """Wants its section computed for every frame, and notes how long that takes."""

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


class Gatherer:
    """Gives each task to the three sharing nodes in turn; one machine to the loop."""

    def __init__(
        self,
        nodes: dict[str, SharingNode],
        askers: dict[str, Asker],
        workers: dict[str, int],
        features: NDArray[np.float32],
        undivided: Section,
    ) -> None:
        self._nodes, self._askers, self._workers = nodes, askers, workers
        self._features, self._undivided = features, undivided
        self.took_s: dict[str, list[float]] = {mode: [] for mode in nodes}
        self.lost = self.wrong = 0
        self.error = 0.0
        self._task = -1
        self._mode = ""  # under way
        self._dones = 0
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
            self._dones += 1
        return effects + self._go_on(now)

    def _concerns(self, event: Event, mode: str, node: SharingNode) -> bool:
        match event:
            case Computed() | Received(Topic(_, Kind.RESULT)):
                return mode == self._mode
            case Received(topic):
                return topic.site == node.site
        return True

    def _go_on(self, now: Now) -> list[Effect]:
        """The next task, where the last has ended, or cannot end any more."""
        if not self._mode:
            if not self._all_there():
                return []
        else:
            answer = self._askers[self._mode].answer
            all_in = answer is not None and self._dones >= self._workers[self._mode]
            if not all_in and (self._due_s is None or now.monotonic_s < self._due_s):
                return []
            self._note(answer if all_in else None)
        at = (MODES.index(self._mode) + 1) % len(MODES) if self._mode else 0
        self._mode, self._dones = MODES[at], 0
        self._task += at == 0
        self._due_s = now.monotonic_s + PATIENCE_S
        frame = self._features[self._task % len(self._features)]
        asked = Captured(self._task, now.wall_s, {"features": frame})
        return self._nodes[self._mode].handle(asked, now)

    def _all_there(self) -> bool:
        return all(
            node.gauges["live_pieces"] == self._workers[mode] for mode, node in self._nodes.items()
        )

    def _note(self, answer: tuple[float, Arrays | None] | None) -> None:
        if answer is None or answer[1] is None:
            self.lost += 1
            self.took_s[self._mode].append(float("nan"))
            return
        took_s, outputs = answer
        self.took_s[self._mode].append(took_s)
        frame = self._features[self._task % len(self._features)]
        scores, expected = outputs["scores"], self._undivided({"features": frame})["scores"]
        self.wrong += int(np.argmax(scores) != np.argmax(expected))
        self.error = max(self.error, float(np.abs(scores - expected).max()))


def gather(arguments: argparse.Namespace) -> None:
    bundle = load_bundle(arguments.bundle, LiteRtSection, [])
    plans = {
        mode: read_plan(arguments.plain if mode == "uncoded" else arguments.coded, bundle.id)
        for mode in MODES
    }
    edge = plans["first_k"].deployment.section
    askers = {mode: Asker(edge) for mode in MODES}
    patience = {"first_k": 0.0, "all_n": PATIENCE_S, "uncoded": 0.0}
    nodes = {
        mode: SharingNode(
            askers[mode],
            f"{arguments.site}-plain" if mode == "uncoded" else arguments.site,
            plan.id,
            plan.deployment,
            threshold_s=patience[mode],
            timeout_s=PATIENCE_S,
            here=False,
            stopwatch=time.perf_counter,
        )
        for mode, plan in plans.items()
    }
    whole = load_bundle(arguments.bundle, LiteRtSection, [edge]).sections[edge]
    golden = read_golden(checked_file(arguments.bundle, bundle.manifest.golden))
    machine = Gatherer(
        nodes,
        askers,
        {mode: len(plan.deployment.workers) for mode, plan in plans.items()},
        golden[f"{edge}/in/features"],
        whole,
    )
    # Head and tail are the same network for both plans: they are cut at the same layer.
    if plans["uncoded"].deployment.layer != plans["first_k"].deployment.layer:
        raise SystemExit("the plans cut different layers")
    loop = Loop(
        Identity(arguments.site, edge, "edge", bundle.id, ddnn_version()),
        machine,
        MqttTransport(f"{arguments.site}-gather", port=arguments.port, version="5"),
        Resources(plans["first_k"].load(LiteRtSection, HEAD, TAIL)),
        stats_every_s=60.0,
    )
    loop.start()
    while machine.tasks < WARM:
        wait(loop)
    until_s = time.monotonic() + arguments.seconds
    while time.monotonic() < until_s:
        wait(loop)
    loop.close()
    count = machine.tasks
    took_s = {mode: spans[WARM:count] for mode, spans in machine.took_s.items()}
    found = {"lost": machine.lost, "wrong": machine.wrong, "error": machine.error, "took_s": took_s}
    arguments.out.write_text(json.dumps(found))


def wait(loop: Loop) -> None:
    if loop.failed is not None:
        raise SystemExit(f"the machine failed: {loop.failed}")
    time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("role", choices=["worker", "gather"])
    parser.add_argument("--site", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--coded", type=Path, required=True, help="plan")
    parser.add_argument("--plain", type=Path, required=True, help="plan of the uncoded layer")
    parser.add_argument("--number", type=int, default=0, help="worker: which, from 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="gather: for how long")
    parser.add_argument("--out", type=Path, help="gather: file to write")
    arguments = parser.parse_args()
    (work if arguments.role == "worker" else gather)(arguments)


if __name__ == "__main__":
    main()
