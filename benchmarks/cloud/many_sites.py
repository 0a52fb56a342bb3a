"""Many edges of six devices against one cloud; part `sites` of benchmarks.cloud.

One Mosquitto, one cloud process that serves every site, one process per site with an edge and its
devices (simulated_site.py). At each rate all sites run for some seconds; a rate is sustained if
every sample of every site is answered in full and stored. Latency is from a sample's capture to
the arrival of its answer at a listener. The baseline passes the same bytes over the same
connections by bare paho clients, in the same run; there a rate is sustained if every sample's
answer arrives. `cores` says how many processor cores each part kept busy: where all parts together
take what the machine has, it is the machine that ends the search, not the cloud.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.cloud.simulated_site import RATE, READY, Options
from benchmarks.harness import bare_exchange
from benchmarks.harness.listener import Listener, PayloadSizes, listen_for_sizes
from benchmarks.harness.percentiles import quantiles_ms
from benchmarks.harness.processes import (
    ONE_THREAD,
    CpuMeter,
    app_command,
    module_command,
)
from benchmarks.harness.sites import EXIT_ALWAYS, EXIT_NEVER, running_broker, write_thresholds
from cloud_app.store import Store
from ddnn.adapters import broker as brokers
from ddnn.core.ids import tick_of
from ddnn.errors import DdnnError
from ddnn.local_site.site import SiteConfig
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer, Status
from ddnn.protocol.topics import EVERYWHERE, Kind, parse, topic_filter
from ddnn.runtime.fleet import Fleet

THRESHOLDS = {"local": EXIT_ALWAYS, "cloud": EXIT_NEVER}  # by the exit of every sample
DEADLINE_S = 1.0
SETTLE_S = 2.0  # after a rate is set, before samples count
READY_S = 120.0
PAGE = 5000  # rows read at a time
GIVE_UP_AFTER = 2  # rates in a row that are not sustained


class SitesListener:
    """Who is ready, and the answers of all sites with their arrival.

    It decodes no answer: a listener that costs much would change what is measured.
    """

    def __init__(self, port: int) -> None:
        self.ready: set[str] = set()
        self.answers: list[tuple[str, bytes, float]] = []  # site, payload, arrival
        filters = [
            f"{READY}/+",
            topic_filter(Kind.STATUS, EVERYWHERE),
            topic_filter(Kind.ANSWER),
            bare_exchange.answer_topic("+"),
        ]
        self._listener = Listener("many-sites", port, filters, self._on_message).start()

    def _on_message(self, topic: str, payload: bytes) -> None:
        now_s = time.time()
        if "/answer/" in topic:
            self.answers.append((topic.split("/")[2], payload, now_s))
        elif topic.startswith(READY):
            self.ready.add(topic.rpartition("/")[2])
        else:
            status = decode(Kind.STATUS, payload)
            if isinstance(status, Status) and status.state == "online":
                self.ready.add(parse(topic).node)

    def set_rate(self, rate_hz: float) -> None:
        self._listener.publish(RATE, str(rate_hz).encode(), retain=True)

    def close(self) -> None:
        self._listener.close()


class ManySites:
    """Broker, cloud and sites as processes; `start_system` or `start_bare` starts them."""

    def __init__(self, edges: int, devices: int, broker: tuple[Fleet, int, Path]) -> None:
        """broker: see `running_broker`, which ends all processes."""
        self.sites = [f"site{number + 1}" for number in range(edges)]
        self._devices = devices
        self._is_bare = False
        self.fleet, self.port, self._state = broker
        self.listener = SitesListener(self.port)

    def start_system(self, config: SiteConfig) -> None:
        """The cloud_app and the machines of all sites; returns once all are ready."""
        options = {
            "site": EVERYWHERE,
            "node": "cloud",
            "bundle": config.bundle,
            "state": self._state,
            "deadline-s": DEADLINE_S,
            "broker-port": self.port,
            "http-port": brokers.free_port(),
        }
        self.fleet.start("cloud", app_command("cloud_app", options), ONE_THREAD)
        for site, phase in self._phases().items():
            site_options = Options(
                site,
                self.port,
                phase,
                bundle=str(config.bundle),
                frames=str(config.frames),
                state=str(self._state),
                deadline_s=DEADLINE_S,
            )
            self._start_site(site_options)
        self._wait_until_ready()

    def start_bare(self, exit_: str, sizes: PayloadSizes) -> None:
        """Clients that pass the same bytes on; returns once all are ready."""
        self._is_bare = True
        cloud = bare_exchange.Client("cloud", self.port, "+", sizes=sizes)
        self.fleet.start("cloud", bare_exchange.command(cloud))
        self.listener.ready.add("cloud")
        for site, phase in self._phases().items():
            edge = bare_exchange.Client(
                "edge", self.port, site, exit=exit_, devices=self._devices, sizes=sizes
            )
            self._start_site(Options(site, self.port, phase, edge))
        self._wait_until_ready()

    def _phases(self) -> dict[str, float]:
        return {site: number / len(self.sites) for number, site in enumerate(self.sites)}

    def _start_site(self, options: Options) -> None:
        command = module_command("benchmarks.cloud.simulated_site", options)
        self.fleet.start(options.site, command, ONE_THREAD)

    def _wait_until_ready(self) -> None:
        until_s = time.monotonic() + READY_S
        while missing := {"cloud", *self.sites} - self.listener.ready:
            for node in missing:
                self.fleet.require_alive(node)
            if time.monotonic() > until_s:
                node = min(missing)
                raise DdnnError(f"{node} is not up: {self.fleet.read_last_line(node)}")
            time.sleep(0.1)
        time.sleep(SETTLE_S)

    def run(self, rate_hz: float, seconds: float) -> dict[str, Any]:
        """All sites at a rate; what became of the samples captured within `seconds`."""
        self.listener.set_rate(rate_hz)
        time.sleep(SETTLE_S)
        self.listener.answers.clear()
        meter = CpuMeter({node: self.fleet.find_pid(node) for node in self.fleet.nodes})
        first = tick_of(time.time(), 1 / rate_hz) + 1
        time.sleep(seconds)
        cores = self._sum_cores(meter.busy_cores())
        last = tick_of(time.time(), 1 / rate_hz) - 1  # a phase is at most one tick
        time.sleep(DEADLINE_S)
        self.listener.set_rate(0)
        time.sleep(1.0)
        ticks = range(first, last)
        took_s = self._latencies(ticks, rate_hz)
        samples = len(ticks) * len(self.sites)
        step = {
            "rate_hz_per_edge": rate_hz,
            "samples_per_s": rate_hz * len(self.sites),
            "samples": samples,
            "arrived": len(took_s),
            **quantiles_ms(list(took_s.values())),
            "cores": cores,
        }
        if self._is_bare:
            return {**step, "sustained": len(took_s) == samples}
        stored, full = self._count_stored(ticks)
        return {**step, "stored": stored, "full": full, "sustained": full == samples}

    @staticmethod
    def _sum_cores(busy: dict[str, float]) -> dict[str, float]:
        """Of the cloud, the broker and all sites together."""
        cores = {name: busy.pop(name) for name in ("cloud", "broker")}
        return {name: round(of, 3) for name, of in {**cores, "sites": sum(busy.values())}.items()}

    def _latencies(self, ticks: range, rate_hz: float) -> dict[tuple[str, int], float]:
        """Seconds from capture to the arrival of the first answer, by site and sample."""
        phases = self._phases()
        took_s: dict[tuple[str, int], float] = {}
        for site, payload, arrived_s in self.listener.answers:
            if self._is_bare:
                sample = bare_exchange.read_sample(payload)
                captured_s = (sample + phases[site]) / rate_hz
            else:
                answer = decode(Kind.ANSWER, payload)
                assert isinstance(answer, Answer)
                sample, captured_s = answer.sample, answer.captured_at_s
            if sample in ticks:
                took_s.setdefault((site, sample), arrived_s - captured_s)
        return took_s

    def _count_stored(self, ticks: range) -> tuple[int, int]:
        """How many of the samples are in the database, and how many are answered in full."""
        store = Store(f"sqlite:///{self._state / 'cloud.db'}")
        stored = full = 0
        try:
            for site in self.sites:
                for start in range(ticks.start, ticks.stop, PAGE):
                    end = min(start + PAGE, ticks.stop) - 1
                    records = store.list_answers(site, start, end, PAGE)
                    stored += len(records)
                    full += sum(record.answer.quality == "full" for record in records)
        finally:
            store.close()
        return stored, full

    def search(self, rates: Sequence[float], seconds: float) -> list[dict[str, Any]]:
        """The steps of rising rates, until some in a row are not sustained."""
        steps: list[dict[str, Any]] = []
        for rate_hz in sorted(rates):
            steps.append(self.run(rate_hz, seconds))
            newest = steps[-GIVE_UP_AFTER:]
            if len(newest) == GIVE_UP_AFTER and not any(step["sustained"] for step in newest):
                break
        return steps

    def close(self) -> None:
        self.listener.close()


def measure_sites(
    config: SiteConfig,
    edges: int,
    devices: int,
    seconds: float,
    rates: Sequence[float],
    exits: Sequence[str] = tuple(THRESHOLDS),
) -> dict[str, Any]:
    """All samples answered locally, and all of them by the cloud, both with the bare exchange."""
    report: dict[str, Any] = {"edges": edges, "devices": devices}
    for exit_ in exits:
        with ExitStack() as stack:
            broker = stack.enter_context(running_broker())
            system = ManySites(edges, devices, broker)
            stack.callback(system.close)
            bundle = broker[2] / "bundle"
            system.start_system(write_thresholds(config, THRESHOLDS[exit_], bundle))
            system.listener.set_rate(2.0)
            sizes = PayloadSizes(**listen_for_sizes(system.port, system.sites[0], 2.0))
            steps = system.search(rates, seconds)
        with ExitStack() as stack:
            bare = ManySites(edges, devices, stack.enter_context(running_broker()))
            stack.callback(bare.close)
            bare.start_bare(exit_, sizes)
            bare_steps = bare.search(rates, seconds)
        report[exit_] = compare_steps(steps, bare_steps)
    return report


def find_best(steps: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The sustained step of the highest rate."""
    sustained = (step for step in steps if step["sustained"])
    return max(sustained, key=lambda step: step["samples_per_s"], default=None)


def compare_steps(system: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> dict[str, Any]:
    """The sustained rates of both, and the latency of both at the system's."""
    ours, theirs = find_best(system), find_best(baseline)
    result: dict[str, Any] = {
        "sustained_samples_per_s": ours and ours["samples_per_s"],
        "bare_sustained_samples_per_s": theirs and theirs["samples_per_s"],
        "limit_reached": not (ours and ours is system[-1]),
        "ratio_sustained": None,
        "ratio_p99": None,
    }
    if ours is not None:
        rate = ours["samples_per_s"]
        same = next((step for step in baseline if step["samples_per_s"] == rate), None)
        result |= {"p50_ms": ours["p50_ms"], "p99_ms": ours["p99_ms"]}
        result["cloud_ms_per_sample"] = round(1e3 * ours["cores"]["cloud"] / rate, 3)
        if theirs is not None:
            result["ratio_sustained"] = round(rate / theirs["samples_per_s"], 2)
        if same is not None and same["p99_ms"]:
            result["bare_p99_ms"] = same["p99_ms"]
            result["ratio_p99"] = round(ours["p99_ms"] / same["p99_ms"], 2)
    return {**result, "steps": system, "bare_steps": baseline}
