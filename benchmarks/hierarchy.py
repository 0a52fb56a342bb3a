"""The running hierarchy against a bare exchange of the same hops and bytes.

    python -m benchmarks.hierarchy --json

Latency: from the capture tick to the arrival of the result at a listener, for samples that all
exit locally and for samples that all go to the cloud, divided by the same for paho clients that
only pass bytes on (benchmarks/bare.py), in the same run on the same broker. Sustained rate: the
highest at which every sample is answered in full. Memory and start of a device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import paho.mqtt.client as paho
import psutil

from benchmarks.bare import ROOT, connect, number
from ddnn.adapters import broker as brokers
from ddnn.adapters.litert import LiteRtSection
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import Site, SiteConfig
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import Kind, parse, topic_filter
from ddnn.runtime.bundle import load_bundle, write_manifest
from ddnn.runtime.fleet import Fleet

RATE_HZ = 100.0
ALWAYS, NEVER = 1.0, 0.0


def variant(bundle: Path, out: Path, threshold: float | dict[str, float]) -> Path:
    """The bundle with other thresholds; one for all exits: samples exit at the first or last."""
    out.mkdir()
    for file in bundle.iterdir():
        if file.is_file():
            (out / file.name).write_bytes(file.read_bytes())
    manifest = load_bundle(bundle, LiteRtSection).manifest
    if not isinstance(threshold, dict):
        threshold = dict.fromkeys(manifest.thresholds, threshold)
    write_manifest(out, msgspec.structs.replace(manifest, thresholds=threshold))
    return out


class Listener:
    """Arrival times by sample, of the hierarchy's results or of the bare exchange's."""

    def __init__(self, port: int, filters: list[str]) -> None:
        self.arrived_s: dict[int, float] = {}
        self.sizes: dict[str, int] = {}
        self._client = connect(f"listener-{time.time_ns()}", port, filters)
        self._client.on_message = self._on_message
        self._client.loop_start()

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        now_s = time.time()
        if message.topic.startswith(ROOT):
            self.arrived_s[number(message)] = now_s
            return
        topic = parse(message.topic)
        self.sizes[topic.kind.name.lower()] = len(message.payload)
        if topic.kind is Kind.ANSWER:
            answer = decode(topic.kind, message.payload)
            assert isinstance(answer, Answer)
            self.arrived_s[answer.sample] = now_s

    def latencies_ms(self, first: int, last: int, rate_hz: float) -> list[float]:
        return [
            1e3 * (arrived_s - sample / rate_hz)
            for sample, arrived_s in self.arrived_s.items()
            if first <= sample < last
        ]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def bare_latency(tier: str, sizes: dict[str, int], devices: int, seconds: float) -> list[float]:
    """Latencies (ms) of the bare exchange."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleet = Fleet(state)
        stack.callback(fleet.close)
        port = brokers.free_port()
        fleet.start("broker", brokers.command("mosquitto", port, state))
        brokers.wait_until_listening(port)
        more = [word for name, size in sizes.items() for word in (f"--{name}-bytes", str(size))]
        command = [sys.executable, "-m", "benchmarks.bare"]
        options = [
            "--port",
            str(port),
            "--exit",
            tier,
            "--devices",
            str(devices),
            "--rate-hz",
            str(RATE_HZ),
            *more,
        ]
        fleet.start("edge", [*command, "edge", *options])
        fleet.start("cloud", [*command, "cloud", *options])
        for i in range(devices):
            fleet.start(f"cam{i + 1}", [*command, "device", "--node", f"cam{i + 1}", *options])
        listener = Listener(port, [f"{ROOT}/answer"])
        stack.callback(listener.close)
        time.sleep(2.0)
        first = int(time.time() * RATE_HZ)
        time.sleep(seconds)
        return listener.latencies_ms(first, int(time.time() * RATE_HZ) - 2, RATE_HZ)


def system_latency(plan: SiteConfig, seconds: float) -> tuple[list[float], dict[str, int]]:
    """Latencies (ms) of the hierarchy, and the payload sizes that were seen."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = Site(plan, "mosquitto", state, rate_hz=RATE_HZ, http_port=brokers.free_port())
        stack.callback(site.close)
        site.start()
        site.watcher.close()  # the listener below stands in its place
        everything = Listener(site.port, ["ddnn/v1/demo/#"])
        time.sleep(1.5)
        everything.close()
        sizes = {k: everything.sizes[k] for k in SIZES if k in everything.sizes}
        listener = Listener(site.port, [topic_filter(Kind.ANSWER, "demo")])  # as the bare one
        stack.callback(listener.close)
        time.sleep(0.5)
        first = site.tick()
        time.sleep(seconds)
        last = site.tick() - 2
        return listener.latencies_ms(first, last, RATE_HZ), sizes


SIZES = ("scores", "features", "escalate", "uplink", "result")


def sustained(plan: SiteConfig, rate_hz: float, seconds: float) -> dict[str, Any]:
    """Whether every sample of `seconds` at a rate is answered in full and in time."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = Site(plan, "mosquitto", state, rate_hz=rate_hz, http_port=brokers.free_port())
        stack.callback(site.close)
        site.start()
        time.sleep(2.0)
        first = site.tick()
        time.sleep(seconds)
        wanted = range(first, site.tick())
        time.sleep(site.deadline_s + 0.5)
        answers = [s.answer for s in site.stored(wanted)]
        full = sum(answer.quality == "full" for answer in answers)
        latency = [1e3 * answer.latency_s for answer in answers] or [float("nan")]
        return {
            "rate_hz": rate_hz,
            "samples": len(wanted),
            "stored": len(answers),
            "full": full,
            "p50_ms": round(float(np.percentile(latency, 50)), 2),
            "p99_ms": round(float(np.percentile(latency, 99)), 2),
            "sustained": full == len(wanted),
        }


def device_start(plan: SiteConfig, times: int = 5) -> dict[str, float]:
    """Seconds from exec to online, and resident MB after some samples; medians."""
    starts, memory = [], []
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fleet = Fleet(state)
        stack.callback(fleet.close)
        port = brokers.free_port()
        fleet.start("broker", brokers.command("mosquitto", port, state))
        brokers.wait_until_listening(port)
        for turn in range(times):
            online = threading.Event()
            node = plan.manifest.hierarchy.devices[0]
            client = connect(f"start-{turn}", port, [f"ddnn/v1/start{turn}/node/{node}/status"])
            client.on_message = lambda *_, online=online: online.set()
            client.loop_start()
            time.sleep(0.3)
            began_s = time.perf_counter()
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "device_app",
                    "--node",
                    node,
                    "--site",
                    f"start{turn}",
                    "--bundle",
                    str(plan.bundle),
                    "--state",
                    str(state),
                    "--broker-port",
                    str(port),
                    "--source",
                    f"frames:{plan.frames}",
                    "--rate-hz",
                    "50",
                ],
                stderr=subprocess.DEVNULL,
            )
            assert online.wait(20)
            starts.append(time.perf_counter() - began_s)
            time.sleep(2.0)
            memory.append(psutil.Process(process.pid).memory_info().rss / 2**20)
            process.terminate()
            process.wait(10)
            client.disconnect()
            client.loop_stop()
    return {
        "start_s": round(float(np.median(starts)), 3),
        "resident_mb": round(float(np.median(memory)), 1),
    }


def section_ms(bundle: Path, names: list[str]) -> float:
    """Batch-1 time of the sections that one answer passes through, one after the other."""
    sections = load_bundle(bundle, LiteRtSection, names).sections
    total = 0.0
    for section in sections.values():
        example = section.example()  # type: ignore[attr-defined]
        times = []
        for _ in range(60):
            time.sleep(1 / RATE_HZ)  # as cold as at the rate of the measurement
            began_s = time.perf_counter()
            section(example)
            times.append(time.perf_counter() - began_s)
        total += 1e3 * float(np.median(times))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=15.0, help="per measurement [15]")
    parser.add_argument("--rates", default="50,100,200,300,400", help="samples per second to try")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--bundle", type=Path, default=None)
    arguments = parser.parse_args()
    plan = prepare_site(arguments.data, 6, "e", arguments.bundle, 0)
    report: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.hierarchy", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": f"{platform.machine()} Python {platform.python_version()}",
    }
    with tempfile.TemporaryDirectory() as directory:
        for tier, threshold, names in (
            ("local", ALWAYS, ["cam1"]),
            ("cloud", NEVER, ["cam1", "edge", "cloud"]),
        ):
            bundle = variant(plan.bundle, Path(directory) / tier, threshold)
            forced = SiteConfig(plan.manifest, bundle, plan.frames, plan.labels)
            own_ms = section_ms(bundle, names)
            system, sizes = system_latency(forced, arguments.seconds)
            bare = bare_latency(tier, sizes, 6, arguments.seconds)
            p50, bare50 = float(np.median(system)), float(np.median(bare))
            report[tier] = {
                "samples": len(system),
                "p50_ms": round(p50, 3),
                "p99_ms": round(float(np.percentile(system, 99)), 3),
                "bare_p50_ms": round(bare50, 3),
                "bare_p99_ms": round(float(np.percentile(bare, 99)), 3),
                "sections_ms": round(own_ms, 3),
                "ratio_p50": round((p50 - own_ms) / bare50, 2),
                "payload_bytes": sizes,
            }
    report["sustained"] = [
        sustained(plan, float(rate), arguments.seconds / 2) for rate in arguments.rates.split(",")
    ]
    report["device"] = device_start(plan)
    if arguments.json:
        print(json.dumps(report))
    else:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
