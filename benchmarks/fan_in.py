"""Many edges of six devices against one cloud; see benchmarks/cloud.py, part `sites`.

One Mosquitto, one cloud process that serves every site, one process per site with an edge and its
devices (benchmarks/sites.py). At each rate all sites run for some seconds; a rate is sustained if
every sample of every site is answered in full and stored. Latency is from a sample's capture to
the arrival of its result at a listener. The baseline passes the same bytes over the same
connections by bare paho clients, in the same run; there a rate is sustained if every sample's
result arrives. `cores` says how many processor cores each part kept busy: where all parts together
take what the machine has, it is the machine that ends the search, not the cloud.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil

from benchmarks import bare
from benchmarks.hierarchy import ALWAYS, NEVER, variant
from benchmarks.report import quantiles_ms
from benchmarks.sites import RATE, READY, Sizes
from cloud_app.store import Store
from ddnn.adapters import broker as brokers
from ddnn.core.ids import tick_of
from ddnn.errors import DdnnError
from ddnn.local_site.site import SiteConfig
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer, Status
from ddnn.protocol.topics import EVERYWHERE, Kind, parse, topic_filter
from ddnn.runtime.fleet import Fleet

DEADLINE_S = 1.0
SETTLE_S = 2.0  # after a rate is set, before samples count
READY_S = 120.0
PAGE = 5000  # rows read at a time
GIVE_UP_AFTER = 2  # rates that fail, one after the other


class Ear:
    """Hears readiness and results; notes arrival times, decodes later: it must cost little."""

    def __init__(self, port: int) -> None:
        self.ready: set[str] = set()
        self.results: list[tuple[str, bytes, float]] = []
        self.sizes: dict[str, int] = {}
        self._port = port
        self._client = bare.connect(
            "ear",
            port,
            [
                f"{READY}/+",
                topic_filter(Kind.STATUS, EVERYWHERE),
                topic_filter(Kind.ANSWER),
                "bare/v1/+/result",
            ],
        )
        self._client.on_message = self._on_message
        self._client.loop_start()

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        now_s, topic, payload = time.time(), message.topic, bytes(message.payload)
        if topic.endswith("/result"):
            self.results.append((topic.split("/")[2], payload, now_s))
        elif topic.startswith(READY):
            self.ready.add(topic.rpartition("/")[2])
        else:
            status = decode(Kind.STATUS, payload)
            if isinstance(status, Status) and status.state == "online":
                self.ready.add(parse(topic).node)

    def rate(self, rate_hz: float) -> None:
        self._client.publish(RATE, str(rate_hz), 1, True)

    def listen_to(self, site: str, seconds: float) -> Sizes:
        """The sizes of a site's messages."""
        seen: dict[str, int] = {}
        client = bare.connect("sizes", self._port, [f"ddnn/v1/{site}/#"])

        def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
            seen[parse(message.topic).kind.name.lower()] = len(message.payload)

        client.on_message = on_message
        client.loop_start()
        time.sleep(seconds)
        client.disconnect()
        client.loop_stop()
        return Sizes(**{name: seen[name] for name in Sizes.__struct_fields__ if name in seen})

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Bench:
    """Broker, cloud and sites as processes, of the system or of the bare exchange."""

    def __init__(
        self,
        plan: SiteConfig | None,
        edges: int,
        devices: int,
        exit_: str,
        state: Path,
        sizes: Sizes | None = None,
    ) -> None:
        self.edges = edges
        self.sites = [f"site{number + 1}" for number in range(edges)]
        self.state = state
        self.fleet = Fleet(state / "logs")
        self.port = brokers.free_port()
        self.fleet.start("broker", brokers.command("mosquitto", self.port, state))
        brokers.wait_until_listening(self.port)
        self.ear = Ear(self.port)
        self._is_bare = plan is None
        python = [sys.executable, "-m"]
        if plan is None:
            assert sizes is not None
            rest = ["--port", str(self.port), "--exit", exit_, "--devices", str(devices)]
            rest += sizes.options()
            self.fleet.start("cloud", [*python, "benchmarks.bare", "cloud", "--site", "+", *rest])
            self.ear.ready.add("cloud")
            more = ["--bare", *rest]
        else:
            common = [
                "--bundle",
                str(plan.bundle),
                "--state",
                str(state),
                "--deadline-s",
                str(DEADLINE_S),
            ]
            self.fleet.start(
                "cloud",
                [
                    *python,
                    "cloud_app",
                    "--site",
                    EVERYWHERE,
                    "--node",
                    "cloud",
                    *common,
                    "--broker-port",
                    str(self.port),
                    "--http-port",
                    str(brokers.free_port()),
                ],
                {"OMP_NUM_THREADS": "1"},
            )
            more = [*common, "--port", str(self.port), "--frames", str(plan.frames)]
        for number, site in enumerate(self.sites):
            phase = ["--phase", str(number / edges)]
            command = [*python, "benchmarks.sites", "--site", site, *phase, *more]
            self.fleet.start(site, command, {"OMP_NUM_THREADS": "1"})
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        until_s = time.monotonic() + READY_S
        while missing := {"cloud", *self.sites} - self.ear.ready:
            for node in missing:
                self.fleet.check(node)
            if time.monotonic() > until_s:
                node = min(missing)
                raise DdnnError(f"{node} is not up: {self.fleet.tail(node)}")
            time.sleep(0.1)
        time.sleep(SETTLE_S)

    def run(self, rate_hz: float, seconds: float) -> dict[str, Any]:
        """All sites at a rate; what became of the samples captured within `seconds`."""
        self.ear.rate(rate_hz)
        time.sleep(SETTLE_S)
        self.ear.results.clear()
        busy = Busy(self.fleet)
        first = tick_of(time.time(), 1 / rate_hz) + 1
        time.sleep(seconds)
        cores = busy.cores()
        last = tick_of(time.time(), 1 / rate_hz) - 1  # a phase later than its tick, at most one
        time.sleep(DEADLINE_S)
        self.ear.rate(0)
        time.sleep(1.0)
        wanted = range(first, last)
        took_s = self._latencies(wanted, rate_hz)
        samples = len(wanted) * self.edges
        step = {
            "rate_hz_per_edge": rate_hz,
            "samples_per_s": rate_hz * self.edges,
            "samples": samples,
            "arrived": len(took_s),
            **quantiles_ms(list(took_s.values())),
            "cores": cores,
        }
        if self._is_bare:
            return {**step, "sustained": len(took_s) == samples}
        stored, full = self._stored(wanted)
        return {**step, "stored": stored, "full": full, "sustained": full == samples}

    def _latencies(self, wanted: range, rate_hz: float) -> dict[tuple[str, int], float]:
        """Seconds from capture to the arrival of the first result, by site and sample."""
        took_s: dict[tuple[str, int], float] = {}
        for site, payload, arrived_s in self.ear.results:
            if self._is_bare:
                sample = int.from_bytes(payload[:8], "big")
                phase = self.sites.index(site) / self.edges
                captured_s = (sample + phase) / rate_hz
            else:
                answer = decode(Kind.ANSWER, payload)
                assert isinstance(answer, Answer)
                sample, captured_s = answer.sample, answer.captured_at_s
            if sample in wanted:
                took_s.setdefault((site, sample), arrived_s - captured_s)
        return took_s

    def _stored(self, wanted: range) -> tuple[int, int]:
        """How many of the samples are in the database, and how many are answered in full."""
        store = Store(f"sqlite:///{self.state / 'cloud.db'}")
        stored = full = 0
        try:
            for site in self.sites:
                for start in range(wanted.start, wanted.stop, PAGE):
                    end = min(start + PAGE, wanted.stop) - 1
                    records = store.answers(site, start, end, PAGE)
                    stored += len(records)
                    full += sum(record.answer.quality == "full" for record in records)
        finally:
            store.close()
        return stored, full

    def search(self, rates: Sequence[float], seconds: float) -> list[dict[str, Any]]:
        """Rates upward, until some in a row are not sustained."""
        steps: list[dict[str, Any]] = []
        for rate_hz in sorted(rates):
            steps.append(self.run(rate_hz, seconds))
            if len(steps) >= GIVE_UP_AFTER and not any(
                step["sustained"] for step in steps[-GIVE_UP_AFTER:]
            ):
                break
        return steps

    def close(self) -> None:
        self.ear.close()
        self.fleet.close()


class Busy:
    """Processor time from now on."""

    def __init__(self, fleet: Fleet) -> None:
        self._began_s = time.monotonic()
        self._all = {node: psutil.Process(fleet.pid(node)) for node in fleet.nodes}
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        spent = {node: process.cpu_times() for node, process in self._all.items()}
        return {node: times.user + times.system for node, times in spent.items()}

    def cores(self) -> dict[str, float]:
        """Cores kept busy by the cloud, the broker and all sites together."""
        seconds = time.monotonic() - self._began_s
        busy = {name: (t - self._before[name]) / seconds for name, t in self._now().items()}
        named = {name: busy.pop(name) for name in ("cloud", "broker")}
        return {k: round(v, 3) for k, v in {**named, "sites": sum(busy.values())}.items()}


def best(steps: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return max((s for s in steps if s["sustained"]), key=lambda s: s["samples_per_s"], default=None)


THRESHOLDS = {"local": ALWAYS, "cloud": NEVER}


def measure(
    plan: SiteConfig,
    edges: int,
    devices: int,
    seconds: float,
    rates: Sequence[float],
    exits: Sequence[str] = tuple(THRESHOLDS),
) -> dict[str, Any]:
    """All samples answered locally, and all of them by the cloud, each beside the bare exchange."""
    report: dict[str, Any] = {"edges": edges, "devices": devices}
    for exit_ in exits:
        with ExitStack() as stack:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-bench-")))
            bundle = variant(plan.bundle, state / "bundle", THRESHOLDS[exit_])
            forced = SiteConfig(plan.manifest, bundle, plan.frames, plan.labels)
            bench = Bench(forced, edges, devices, exit_, state)
            stack.callback(bench.close)
            bench.ear.rate(2.0)
            sizes = bench.ear.listen_to(bench.sites[0], 2.0)
            system = bench.search(rates, seconds)
        with ExitStack() as stack:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-bench-")))
            bench = Bench(None, edges, devices, exit_, state, sizes)
            stack.callback(bench.close)
            baseline = bench.search(rates, seconds)
        report[exit_] = compared(system, baseline)
    return report


def compared(system: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> dict[str, Any]:
    """The sustained rates of both, and the latency of both at the system's."""
    ours, theirs = best(system), best(baseline)
    result: dict[str, Any] = {
        "sustained_samples_per_s": ours and ours["samples_per_s"],
        "bare_sustained_samples_per_s": theirs and theirs["samples_per_s"],
        "limit_reached": not (ours and ours is system[-1]),
        "ratio_sustained": None,
        "ratio_p99": None,
    }
    if ours is not None:
        same = next((s for s in baseline if s["samples_per_s"] == ours["samples_per_s"]), None)
        result |= {"p50_ms": ours["p50_ms"], "p99_ms": ours["p99_ms"]}
        result["cloud_ms_per_sample"] = round(
            1e3 * ours["cores"]["cloud"] / ours["samples_per_s"], 3
        )
        if theirs is not None:
            result["ratio_sustained"] = round(ours["samples_per_s"] / theirs["samples_per_s"], 2)
        if same is not None and same["p99_ms"]:
            result["bare_p99_ms"] = same["p99_ms"]
            result["ratio_p99"] = round(ours["p99_ms"] / same["p99_ms"], 2)
    return {**result, "steps": system, "bare_steps": baseline}
