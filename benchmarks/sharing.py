"""A layer shared among workers that die and stall; see benchmarks/coding.py, part `latency`.

One broker and one set of cameras; what changes is the edge and its workers, a new set of processes
for each system and round:

coded      any 2 of the 6 workers may vanish (MDS code, 4 blocks)
replicate  the same by copies: 2 blocks, each three times
none       6 blocks, nothing spare: the edge waits for its layer time-out, then computes the section
           itself, and at once while it knows that a worker is missing
alone      the edge computes its section itself: no workers, the floor
bare       while the edge works alone: paho clients that pass the bytes of a task and its answers

Latency is from the capture tick to the arrival of the result at a listener. Workers are killed or
stopped at a random moment while a sample is under way; samples under way count as hit. A stopped
worker is as one whose power or network failed: its connection says nothing. A killed one's socket
is closed by its system, so that the broker tells its death at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from ddnn.runtime.deployment import Plan as Sharded
from ddnn.runtime.deployment import read_plan

from benchmarks.bare import body, connect, number
from benchmarks.bare_worker import DONE, TASK
from ddnn.adapters import broker as brokers
from ddnn.adapters.litert import LiteRtSection
from ddnn.core.ids import tick_of
from ddnn.errors import DdnnError
from ddnn.exits.inference import run_devices, run_exits
from ddnn.exits.manifest import judge
from ddnn.local_site.bundles import parse_thresholds, prepare_site, share_layer
from ddnn.local_site.site import SiteConfig
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.messages import Answer, OffloadState, Result, Task, Tensor
from ddnn.protocol.topics import Kind, Topic, topic_filter
from ddnn.runtime.bundle import load_bundle, read_manifest
from ddnn.runtime.fleet import Fleet

SITE, EDGE = "bench", "edge"
WORKERS, TOLERATE = 6, 2
RATE_HZ = 50.0
DEADLINE_S = 1.0
LAYER_TIMEOUT_S = 0.06  # edge_app's own
READY_S = 40.0
TRANSITION_S = 2.0  # after a signal
AIM_RATIO = 1.1
RESAMPLES = 1000
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}

Progress = Callable[..., None]  # progress(done, what), done from 0 to 1


@dataclass(frozen=True)
class Effort:
    """How long it takes: rounds, and seconds of each phase."""

    rounds: int
    cycles: int  # of the coded system, per round
    free_s: float
    hit_s: float
    bare_s: float
    settle_s: float = 1.5  # after a start, before samples count
    systems: tuple[str, ...] = ("coded", "replicate", "none", "alone")

    def total_s(self) -> float:
        """About, for the progress bar."""
        cycles = self.cycles + len(self.systems) - 2
        cycle_s = 2 * self.free_s + 2 * self.hit_s + 3.0 + self.settle_s
        starts_s = len(self.systems) * (2.5 + self.settle_s)
        return self.rounds * (starts_s + cycles * cycle_s + self.free_s + self.bare_s)


FULL = Effort(rounds=3, cycles=2, free_s=2.5, hit_s=3.0, bare_s=4.0)
QUICK = Effort(
    1, 1, free_s=0.5, hit_s=0.6, bare_s=0.5, settle_s=0.3, systems=("coded", "none", "alone")
)


@dataclass
class Phase:
    """Some seconds of one system in one condition."""

    system: str
    condition: str  # free, killed or stopped
    first: int  # sample
    last: int
    signalled_s: float = 0.0


class Ear:
    """Hears results, presence and the edge's state; notes times, decodes results later."""

    def __init__(self, port: int, command: tuple[str, bytes]) -> None:
        self.results: dict[int, tuple[bytes, float]] = {}  # by sample, the first to arrive
        self.newest: tuple[int, float] = (0, 0.0)  # sample that the edge answered, arrival
        self.sharing: tuple[OffloadState, float] | None = None
        self.told: list[tuple[float, OffloadState]] = []
        self._client = connect(
            "ear",
            port,
            [
                topic_filter(Kind.ANSWER, SITE),
                topic_filter(Kind.OFFLOAD, SITE),
            ],
        )
        self._client.on_message = self._on_message
        self._client.loop_start()
        self._client.publish(*command, 1, True)

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        now_s, payload = time.time(), bytes(message.payload)
        if message.topic.endswith("/answer"):
            answer = decode(Kind.ANSWER, payload)
            assert isinstance(answer, Answer)
            self.results.setdefault(answer.sample, (payload, now_s))
            if answer.node == EDGE:
                self.newest = (answer.sample, now_s)
        else:
            state = decode(Kind.OFFLOAD, payload)
            assert isinstance(state, OffloadState)
            self.sharing = (state, now_s)
            self.told.append((now_s, state))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Bench:
    """Broker and cameras for the whole run; edge and workers of one system after the other."""

    def __init__(
        self,
        plan: SiteConfig,
        plans: dict[str, Sharded],
        state: Path,
        settle_s: float,
    ) -> None:
        self._plan, self._plans, self._state, self._settle_s = plan, plans, state, settle_s
        self.fleet = Fleet(state / "logs")
        self.port = brokers.free_port()
        self.fleet.start("broker", brokers.command("mosquitto", self.port, state))
        self._system, self._starts = "", 0
        self.phases: list[Phase] = []
        self.hit: list[tuple[str, ...]] = []

    def open(self) -> None:
        brokers.wait_until_listening(self.port)
        # every sample exits at the edge
        command = parse_thresholds(self._plan, ("local=0", "edge=1"))
        topic = str(Topic(SITE, Kind.THRESHOLDS, EDGE))
        self.ear = Ear(self.port, (topic, encode(command)))
        for camera in self._plan.manifest.hierarchy.devices:
            frames = ("--source", f"frames:{self._plan.frames}", "--rate-hz", str(RATE_HZ))
            self._app(camera, "device_app", *frames)

    def _app(self, node: str, module: str, *more: str) -> None:
        self._starts += 1  # what an earlier life could not deliver is none of the next one's
        state = self._state / f"{node}-{self._starts}"
        state.mkdir()
        command = [
            sys.executable,
            "-m",
            module,
            "--node",
            node,
            "--site",
            SITE,
            "--bundle",
            str(self._plan.bundle),
            "--state",
            str(state),
            "--mqtt",
            "5",
            "--broker-port",
            str(self.port),
            "--deadline-s",
            str(DEADLINE_S),
            *more,
        ]
        self.fleet.start(node, command, ENVIRONMENT)

    @property
    def _workers(self) -> list[str]:
        plan = self._plans.get(self._system)
        return list(plan.deployment.workers) if plan is not None else []

    def use(self, system: str) -> None:
        """End the edge and workers that are there, start those of a system."""
        self._end([EDGE, *self._workers])
        self._system, began_s = system, time.time()
        plan = self._plans.get(system)
        sharing = ("--plan", str(plan.path)) if plan is not None else ()
        timeout = ("--redundancy", "on", "--layer-timeout-s", str(LAYER_TIMEOUT_S))
        self._app(EDGE, "edge_app", *(timeout if plan is not None else ()), *sharing)
        for worker in self._workers:
            self._app(worker, "device_app", "--lend", "on", *sharing)
        self._wait(began_s)
        time.sleep(self._settle_s)

    def _end(self, nodes: Sequence[str]) -> None:
        there = [node for node in nodes if self.fleet.alive(node)]
        for node in there:
            self.fleet.signal(node, signal.SIGTERM)
        until_s = time.monotonic() + 10.0
        while any(self.fleet.alive(node) for node in there):
            if time.monotonic() > until_s:
                raise DdnnError(f"{there} have not ended")
            time.sleep(0.02)

    def _wait(self, since_s: float) -> None:
        """Until the edge answers, and counts on all of the workers."""
        until_s = time.monotonic() + READY_S
        while not self._ready(since_s):
            for node in (EDGE, *self._workers):
                self.fleet.check(node)
            if time.monotonic() > until_s:
                raise DdnnError(f"{self._system} is not up: {self.fleet.tail(EDGE)}")
            time.sleep(0.02)

    def _ready(self, since_s: float) -> bool:
        if self.ear.newest[1] < since_s or self.ear.newest[0] / RATE_HZ < since_s:
            return False
        plan = self._plans.get(self._system)
        if plan is None:
            return True
        if self.ear.sharing is None or self.ear.sharing[1] < since_s:
            return False
        state = self.ear.sharing[0]
        return state.plan == plan.id and state.live_pieces == state.pieces

    def free(self, seconds: float) -> None:
        """Let samples pass."""
        first = tick_of(time.time(), 1 / RATE_HZ) + 1
        time.sleep(seconds)
        self.phases.append(Phase(self._system, "free", first, self._newest_tick()))

    def strike(
        self,
        kind: signal.Signals,
        workers: Sequence[str],
        late: float,
        seconds: float,
    ) -> None:
        """Signal workers while a sample is under way, let samples pass, bring the workers back.

        late: from 0 to 1, how far the sample has come. Up to 0.8 of the usual latency: else most
        would have arrived.
        """
        next_tick = tick_of(time.time(), 1 / RATE_HZ) + 2
        usual_s = np.median(
            [
                arrived_s - sample / RATE_HZ
                for sample, (_, arrived_s) in list(self.ear.results.items())[-50:]
            ]
        )
        processes = [self.fleet.pid(worker) for worker in workers]
        time.sleep(max(0.0, next_tick / RATE_HZ + 0.8 * late * float(usual_s) - time.time()))
        at_s = time.time()
        for pid in processes:  # all at once: Fleet would wait for the end of each
            os.kill(pid, kind)
        time.sleep(seconds)
        condition = "killed" if kind == signal.SIGKILL else "stopped"
        # Samples under way are those before `next_tick`, too, that had not arrived.
        span = range(next_tick - int(DEADLINE_S * RATE_HZ), self._newest_tick())
        self.phases.append(Phase(self._system, condition, span.start, span.stop, at_s))
        self.hit.append(tuple(workers))
        back_s = time.time()
        for worker in workers:
            if kind == signal.SIGKILL:
                self.fleet.signal(worker, kind)  # takes note of its end
                self.fleet.start(worker)
            else:
                self.fleet.signal(worker, signal.SIGCONT)
        self._wait(back_s)
        time.sleep(self._settle_s / 3)

    @staticmethod
    def _newest_tick() -> int:
        return tick_of(time.time() - 0.05, 1 / RATE_HZ)

    def close(self) -> None:
        if hasattr(self, "ear"):
            self.ear.close()
        self.fleet.close()


class BareExchange:
    """The bytes of a task to all workers, the bytes of their answers back; nothing is computed."""

    def __init__(self, bench: Bench, plan: Sharded) -> None:
        deployment = plan.deployment
        x, z = (
            np.zeros(shape, np.float32)
            for shape in (deployment.input_shape, deployment.shard_shape)
        )
        job = int(time.time() * 1e3)
        self._task_bytes = len(encode(Task(1, plan.id, job, Tensor.of(x))))
        self._done_bytes = len(encode(Result(1, plan.id, job, 0, Tensor.of(z))))
        self._fleet, self._workers = bench.fleet, len(deployment.workers)
        self._k = len(deployment.generator[0])
        self._nodes = [f"bare{i + 1}" for i in range(self._workers)]
        self._sent_s: dict[int, float] = {}
        self._came_s: dict[int, list[float]] = {}
        self._lock = threading.Lock()
        for node in self._nodes:
            self._fleet.start(
                node,
                [
                    sys.executable,
                    "-m",
                    "benchmarks.bare_worker",
                    "--node",
                    node,
                    "--port",
                    str(bench.port),
                    "--done-bytes",
                    str(self._done_bytes),
                ],
            )
        self._client = connect("gather", bench.port, [f"{DONE}/+"])
        self._client.on_message = self._on_message
        self._client.loop_start()

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        came_s = time.perf_counter()
        with self._lock:
            self._came_s.setdefault(number(message), []).append(came_s)

    def run(self, seconds: float) -> tuple[list[float], list[float]]:
        """Seconds to the k-th and to the last answer, half a period after each capture."""
        tick = tick_of(time.time(), 1 / RATE_HZ)
        until_s = time.monotonic() + READY_S  # till all answer
        while len(self._came_s.get(tick, ())) < self._workers:
            if time.monotonic() > until_s:
                raise DdnnError(f"bare workers: {self._fleet.tail(self._nodes[0])}")
            tick = self._send(tick)
            time.sleep(0.1)
        warm = tick + int(RATE_HZ / 4)
        last = warm + int(seconds * RATE_HZ)
        while tick < last:
            tick = self._send(tick)
        time.sleep(0.2)
        full = [n for n in range(warm, last) if len(self._came_s.get(n, ())) == self._workers]
        return tuple(  # type: ignore[return-value]
            [self._came_s[n][at - 1] - self._sent_s[n] for n in full]
            for at in (self._k, self._workers)
        )

    def _send(self, tick: int) -> int:
        tick = max(tick + 1, tick_of(time.time(), 1 / RATE_HZ))
        time.sleep(max(0.0, (tick + 0.5) / RATE_HZ - time.time()))
        self._sent_s[tick] = time.perf_counter()
        self._client.publish(TASK, body(tick, self._task_bytes))
        return tick

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        for node in self._nodes:
            self._fleet.signal(node, signal.SIGKILL)


# --------------------------------------------------------------------- the part


def latency(
    seed: int, progress: Progress, quick: bool = False, plan: SiteConfig | None = None
) -> dict[str, Any]:
    """See the head of this file. progress: share done, what. plan: by default the demo's."""
    plan, effort = plan or demo_plan(), QUICK if quick else FULL
    plans = {
        system: planned(plan, redundancy, WORKERS, tolerate)
        for system, redundancy, tolerate in (
            ("coded", "coded", TOLERATE),
            ("replicate", "replicate", TOLERATE),
            ("none", "none", 0),
        )
        if system in effort.systems
    }
    with ExitStack() as stack:
        state = Path(stack.enter_context(TemporaryDirectory(prefix="ddnn-bench-")))
        bench = Bench(plan, plans, state, effort.settle_s)
        stack.callback(bench.close)
        bench.open()
        bare = run(bench, plans["coded"], np.random.default_rng(seed), progress, effort)
        heard = bench.ear
    verdicts = judged(plan, heard.results)
    report: dict[str, Any] = {
        "rate_hz": RATE_HZ,
        "layer": plans["coded"].deployment.layer,
        "workers": WORKERS,
        "tolerate": TOLERATE,
        "layer_timeout_ms": 1e3 * LAYER_TIMEOUT_S,
        "rounds": effort.rounds,
        "losses": [list(workers) for workers in bench.hit],
    }
    for system in effort.systems:
        phases = [phase for phase in bench.phases if phase.system == system]
        report[system] = summary(phases, verdicts, heard.told)
        if system in plans:
            report[system]["blocks"] = len(plans[system].deployment.generator[0])
    report["bare"] = {
        "to_enough": figures(bare[0]),
        "to_all": figures(bare[1]),
    }
    coded = report["coded"]
    ratios = [coded[condition]["ratio_p99"] for condition in ("killed", "stopped")]
    none_amiss = not any(coded[what] for what in ("lost", "late", "degraded", "mislabelled"))
    report["aim_ratio_p99"] = AIM_RATIO
    report["answers_hold"] = none_amiss
    report["ratio_judged"] = not quick  # some tens of samples have no p99
    report["holds"] = none_amiss and (quick or all(ratio <= AIM_RATIO for ratio in ratios))
    return report


def demo_plan() -> SiteConfig:
    """The demo's bundle, trained if there is none yet."""
    return prepare_site("scenes", 6, "e", None, 0, cut=True)


def planned(plan: SiteConfig, redundancy: str, workers: int, tolerate: int) -> Sharded:
    """A plan for the demo's edge, kept as the demo keeps its own."""
    own = replace(plan)
    share_layer(own, redundancy, workers, tolerate, "")
    assert own.plan is not None
    return read_plan(own.plan, read_manifest(plan.bundle)[1])


def run(
    bench: Bench,
    coded: Sharded,
    random: np.random.Generator,
    progress: Progress,
    effort: Effort,
) -> tuple[list[float], list[float]]:
    """All rounds; the seconds of the bare exchange."""
    began_s, total_s = time.monotonic(), effort.total_s()
    names = list(coded.deployment.workers)
    bare: tuple[list[float], list[float]] = ([], [])
    for round_ in range(effort.rounds):
        losses = [
            (sorted(random.choice(names, TOLERATE, replace=False).tolist()), random.uniform())
            for _ in range(2 * effort.cycles)
        ]
        for system in effort.systems[:: 1 if round_ % 2 == 0 else -1]:
            done = (time.monotonic() - began_s) / total_s
            progress(min(done, 0.99), f"{system}, round {round_ + 1} of {effort.rounds}")
            bench.use(system)
            if system == "alone":
                bench.free(effort.free_s)
                exchange = BareExchange(bench, coded)
                try:
                    took_s = exchange.run(effort.bare_s)
                finally:
                    exchange.close()
                bare[0].extend(took_s[0])
                bare[1].extend(took_s[1])
                continue
            for cycle in range(effort.cycles if system == "coded" else 1):
                kinds = (signal.SIGKILL, signal.SIGSTOP)
                for kind, (workers, late) in zip(kinds, losses[2 * cycle :], strict=False):
                    bench.free(effort.free_s)
                    bench.strike(kind, workers, late, effort.hit_s)
    progress(1.0, "latency")
    return bare


# ---------------------------------------------------------------------- figures


@dataclass(frozen=True)
class Verdict:
    """One sample's answer beside what the undistributed network says."""

    arrived_s: float
    by_edge: bool
    full: bool
    right: bool
    error: float  # of its probabilities


def judged(plan: SiteConfig, results: dict[int, tuple[bytes, float]]) -> dict[int, Verdict]:
    """Every answer against the undistributed network's on the same frames, up to the edge."""
    loaded = load_bundle(plan.bundle, LiteRtSection)
    manifest, everyone = loaded.manifest, loaded.manifest.hierarchy.everyone
    images = np.load(plan.frames / "images.npy", mmap_mode="r", allow_pickle=False)
    expected: dict[int, tuple[int, list[float]]] = {}
    verdicts = {}
    for sample, (payload, arrived_s) in results.items():
        index = sample % len(images)
        if index not in expected:
            outputs = run_devices(manifest, loaded.sections, images[index])
            scores = run_exits(manifest, loaded.sections, outputs, everyone)["edge"]
            told = judge(manifest, "edge", scores, everyone)
            expected[index] = (told.label, told.probabilities)
        answer = decode(Kind.ANSWER, payload)
        assert isinstance(answer, Answer)
        label, probabilities = expected[index]
        error = np.abs(np.subtract(answer.probabilities, probabilities)).max()
        verdicts[sample] = Verdict(
            arrived_s,
            answer.exit == EDGE,
            answer.quality == "full",
            answer.label == label,
            float(error),
        )
    return verdicts


@dataclass
class Samples:
    """What became of the samples of some phases."""

    took_s: list[float] = field(default_factory=list)
    transition_s: list[float] = field(default_factory=list)
    before_s: list[float] = field(default_factory=list)  # … the last one that waited in vain
    after_s: list[float] = field(default_factory=list)
    unknown_s: list[float] = field(default_factory=list)  # signal to the last that waited, by event
    waited: int = 0
    in_flight: int = 0
    lost: int = 0
    late: int = 0
    degraded: int = 0
    mislabelled: int = 0
    error: float = 0.0

    def add(self, phase: Phase, verdicts: dict[int, Verdict]) -> None:
        span: list[tuple[float, float]] = []  # captured, took
        for sample in range(phase.first, phase.last):
            captured_s, verdict = sample / RATE_HZ, verdicts.get(sample)
            if captured_s < phase.signalled_s:
                if verdict is not None and verdict.arrived_s < phase.signalled_s:
                    continue  # answered before
                self.in_flight += 1
            if verdict is None:
                self.lost += 1
                continue
            took_s = verdict.arrived_s - captured_s
            span.append((captured_s, took_s))
            self.late += took_s > DEADLINE_S or not verdict.by_edge
            self.degraded += not verdict.full
            if verdict.full:
                self.mislabelled += not verdict.right
                self.error = max(self.error, verdict.error)
        self.took_s += [took_s for _, took_s in span]
        if phase.condition == "free":
            return
        begun_s = phase.signalled_s
        self.transition_s += [took for at, took in span if at < begun_s + TRANSITION_S]
        waited = [at + took for at, took in span if took >= LAYER_TIMEOUT_S]
        self.waited += len(waited)
        # Known from then on; with nobody waiting, those under way are the ones that could have.
        known_s = max(waited, default=begun_s)
        self.unknown_s.append(known_s - begun_s)
        self.before_s += [took for at, took in span if at < known_s]
        self.after_s += [took for at, took in span if at >= known_s]


def summary(
    phases: list[Phase], verdicts: dict[int, Verdict], told: list[tuple[float, OffloadState]]
) -> dict[str, Any]:
    """The figures of one system."""
    found = {condition: Samples() for condition in ("free", "killed", "stopped")}
    for phase in phases:
        found[phase.condition].add(phase, verdicts)
    free = found["free"]
    report: dict[str, Any] = {
        name: sum(getattr(samples, name) for samples in found.values())
        for name in ("lost", "late", "degraded", "mislabelled")
    }
    report["max_probability_error"] = max(samples.error for samples in found.values())
    report["free"] = figures(free.took_s)
    for condition, samples in found.items():
        if condition == "free" or not samples.took_s:
            continue
        report[condition] = {
            **figures(samples.took_s),
            **ratio(samples.took_s, free.took_s),
            "transition": {
                **figures(samples.transition_s),
                **ratio(samples.transition_s, free.took_s),
            },
            "until_known": figures(samples.before_s),
            "once_known": figures(samples.after_s),
            "unknown_ms": [round(1e3 * s, 1) for s in samples.unknown_s],
            "in_flight": samples.in_flight,
            "waited_for_timeout": samples.waited,
        }
    states = [
        state
        for at_s, state in told
        if any(
            p.condition == "free" and p.first / RATE_HZ < at_s < p.last / RATE_HZ for p in phases
        )
    ]
    if states:
        report["gather_ms"] = round(float(np.median([s.gather_ms for s in states])), 3)
        report["decode_ms"] = round(float(np.median([s.combine_ms for s in states])), 4)
    return report


def figures(seconds: Sequence[float]) -> dict[str, Any]:
    """How many, mean and quantiles in milliseconds."""
    if not len(seconds):
        return {"samples": 0, "mean_ms": None, "p50_ms": None, "p99_ms": None, "max_ms": None}
    p50, p99 = np.percentile(seconds, [50, 99])
    values = {"mean": np.mean(seconds), "p50": p50, "p99": p99, "max": np.max(seconds)}
    return {
        "samples": len(seconds),
        **{f"{name}_ms": round(1e3 * float(value), 2) for name, value in values.items()},
    }


def ratio(hit_s: Sequence[float], free_s: Sequence[float]) -> dict[str, Any]:
    """p99 with workers missing over p99 without, and where 95 % of resampled ones lie."""
    hit, free = np.asarray(hit_s), np.asarray(free_s)
    random = np.random.default_rng(0)
    drawn = [
        np.percentile(random.choice(hit, len(hit)), 99)
        / np.percentile(random.choice(free, len(free)), 99)
        for _ in range(RESAMPLES)
    ]
    return {
        "ratio_p50": round(float(np.median(hit) / np.median(free)), 3),
        "ratio_p99": round(float(np.percentile(hit, 99) / np.percentile(free, 99)), 3),
        "ratio_p99_95": [round(float(q), 3) for q in np.percentile(drawn, [2.5, 97.5])],
    }
