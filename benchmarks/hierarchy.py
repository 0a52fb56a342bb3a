"""The running hierarchy against a bare exchange of the same hops and bytes.

    python -m benchmarks.hierarchy --seconds 15 --rates 50,100,200 --json

local, cloud       latency from the capture tick to the arrival of the answer at a listener, where
                   all samples exit locally or all go to the cloud; and the same of paho clients
                   that only pass the bytes on (benchmarks/harness/bare_exchange.py), on a broker of
                   their own in the same run
sustained          whether every sample at a rate is answered in full
device             time to start and memory of a device
cpu_ms_per_sample  processor time of each process for one sample, see benchmarks/site_cpu.py
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import bare_exchange
from benchmarks.harness.bare_exchange import answer_topic, read_sample
from benchmarks.harness.listener import Listener, PayloadSizes, listen_for_sizes
from benchmarks.harness.percentiles import quantiles_ms
from benchmarks.harness.processes import ROOT, app_command, interrupt_on_sigterm, resident_mb
from benchmarks.harness.report import make_header, make_parser, print_report
from benchmarks.harness.sites import EXIT_ALWAYS, EXIT_NEVER, running_broker, running_site
from benchmarks.site_cpu import measure_site_cpu
from ddnn.adapters.litert import LiteRtSection
from ddnn.errors import DdnnError, LinkError
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import SiteConfig
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import Kind, Topic, topic_filter
from ddnn.runtime.bundle import load_bundle

LATENCY_RATE_HZ = 100.0
START_S = 30.0  # the longest that processes may take to answer the first sample
SETTLE_S = 2.0
ONLINE_S = 20.0


class AnswerTimes:
    """The arrival of the first answer to each sample, of a site or of the bare exchange."""

    def __init__(self, port: int, rate_hz: float, *, bare: bool) -> None:
        self._rate_hz, self._bare = rate_hz, bare
        self._arrived_s: dict[int, float] = {}
        topic = answer_topic(SITE) if bare else topic_filter(Kind.ANSWER, SITE)
        self._listener = Listener("answer-times", port, [topic], self._note).start()

    def _note(self, _topic: str, payload: bytes) -> None:
        now_s = time.time()
        if self._bare:
            sample = read_sample(payload)
        else:
            answer = decode(Kind.ANSWER, payload)
            assert isinstance(answer, Answer)
            sample = answer.sample
        self._arrived_s.setdefault(sample, now_s)

    def measure(self, seconds: float) -> list[float]:
        """Let samples pass; seconds from capture to arrival of those that are answered.

        Raises DdnnError where no answer comes at all.
        """
        until_s = time.monotonic() + START_S
        while not self._arrived_s:
            if time.monotonic() > until_s:
                raise DdnnError(f"no answer within {START_S:g} s")
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        first = int(time.time() * self._rate_hz)
        time.sleep(seconds)
        last = int(time.time() * self._rate_hz) - 2  # the newest are still under way
        arrived_s = dict(self._arrived_s)
        return [s - n / self._rate_hz for n, s in arrived_s.items() if first <= n < last]

    def close(self) -> None:
        self._listener.close()


def measure_site(
    config: SiteConfig, threshold: float, seconds: float
) -> tuple[list[float], dict[str, int]]:
    """Seconds from capture to answer in a site, and the sizes of its payloads."""
    with ExitStack() as stack:
        site = stack.enter_context(running_site(config, threshold, rate_hz=LATENCY_RATE_HZ))
        site.watcher.close()  # the listener below takes its place
        sizes = listen_for_sizes(site.port, SITE, 1.5)
        times = AnswerTimes(site.port, LATENCY_RATE_HZ, bare=False)
        stack.callback(times.close)
        return times.measure(seconds), sizes


def measure_bare_exchange(
    tier: str, sizes: dict[str, int], devices: int, seconds: float
) -> list[float]:
    """Seconds from tick to answer where clients only pass bytes on."""
    with ExitStack() as stack:
        fleet, port, _ = stack.enter_context(running_broker())
        roles: dict[str, bare_exchange.Role] = {"edge": "edge", "cloud": "cloud"}
        roles |= {f"cam{i + 1}": "device" for i in range(devices)}
        for node, role in roles.items():
            client = bare_exchange.Client(
                role,
                port,
                node=node,
                exit=tier,
                devices=devices,
                rate_hz=LATENCY_RATE_HZ,
                sizes=PayloadSizes(**sizes),
            )
            fleet.start(node, bare_exchange.command(client))
        times = AnswerTimes(port, LATENCY_RATE_HZ, bare=True)
        stack.callback(times.close)
        return times.measure(seconds)


def measure_sections_ms(bundle: Path, names: list[str]) -> float:
    """Batch-1 time of the sections that one answer passes through, one after the other."""
    total_ms = 0.0
    for section in load_bundle(bundle, LiteRtSection, names).sections.values():
        example = section.example()
        times_s = []
        for _ in range(60):
            time.sleep(1 / LATENCY_RATE_HZ)  # caches are as cold as at the rate of the measurement
            began_s = time.perf_counter()
            section(example)
            times_s.append(time.perf_counter() - began_s)
        total_ms += 1e3 * float(np.median(times_s))
    return total_ms


def compare_latency(config: SiteConfig, tier: str, seconds: float) -> dict[str, Any]:
    """Latency of a site all of whose samples exit at `tier`, and of the bare exchange."""
    hierarchy = config.manifest.hierarchy
    device = hierarchy.devices[0]
    names = [device] if tier == "local" else [device, hierarchy.lead, "cloud"]
    threshold = EXIT_ALWAYS if tier == "local" else EXIT_NEVER
    sections_ms = measure_sections_ms(config.bundle, names)
    site_s, sizes = measure_site(config, threshold, seconds)
    bare_s = measure_bare_exchange(tier, sizes, len(hierarchy.devices), seconds)
    of_site, of_bare = quantiles_ms(site_s, 3), quantiles_ms(bare_s, 3)
    own_ms = 1e3 * float(np.median(site_s)) - sections_ms
    return {
        "samples": len(site_s),
        **of_site,
        **{f"bare_{name}": value for name, value in of_bare.items()},
        "sections_ms": round(sections_ms, 3),
        "ratio_p50": round(own_ms / (1e3 * float(np.median(bare_s))), 2),
        "payload_bytes": sizes,
    }


def measure_rate(config: SiteConfig, rate_hz: float, seconds: float) -> dict[str, Any]:
    """Whether every sample of `seconds` at a rate is answered in full and stored."""
    with running_site(config, rate_hz=rate_hz) as site:
        time.sleep(SETTLE_S)
        first = site.tick()
        time.sleep(seconds)
        samples = range(first, site.tick())
        time.sleep(site.deadline_s + 0.5)
        answers = [stored.answer for stored in site.list_stored(samples)]
    full = sum(answer.quality == "full" for answer in answers)
    return {
        "rate_hz": rate_hz,
        "samples": len(samples),
        "stored": len(answers),
        "full": full,
        **quantiles_ms([answer.latency_s for answer in answers]),
        "sustained": full == len(samples),
    }


def measure_device(config: SiteConfig, times: int = 5) -> dict[str, float]:
    """Seconds from start to online, and resident MB after some samples; medians."""
    node = config.manifest.hierarchy.devices[0]
    started_s, memory_mb = [], []
    with running_broker() as (fleet, port, state):
        for turn in range(times):
            name, site = f"{node}-{turn}", f"start{turn}"
            online_s: list[float] = []
            listener = Listener(
                f"status-{turn}",
                port,
                [str(Topic(site, Kind.STATUS, node))],
                lambda *_, online_s=online_s: online_s.append(time.perf_counter()),
            ).start()
            time.sleep(0.3)
            began_s = time.perf_counter()
            fleet.start(name, device_command(config, site, state, port))
            while not online_s:
                fleet.require_alive(name)
                if time.perf_counter() > began_s + ONLINE_S:
                    raise LinkError(f"a device is not online after {ONLINE_S:g} s")
                time.sleep(0.01)
            started_s.append(online_s[0] - began_s)
            time.sleep(2.0)
            memory_mb.append(resident_mb(fleet.find_pid(name)))
            fleet.send_signal(name, signal.SIGKILL)
            listener.close()
    return {
        "start_s": round(float(np.median(started_s)), 3),
        "resident_mb": round(float(np.median(memory_mb)), 1),
    }


def device_command(config: SiteConfig, site: str, state: Path, port: int) -> list[str]:
    """The command of the first device of a site."""
    options = {
        "node": config.manifest.hierarchy.devices[0],
        "site": site,
        "bundle": config.bundle,
        "state": state,
        "broker-port": port,
        "source": f"frames:{config.frames}",
        "rate-hz": 50,
    }
    return app_command("device_app", options)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="per measurement [15]")
    parser.add_argument(
        "--rates", default="50,100,200,300,400", help="samples/s to try [50,100,200,300,400]"
    )
    parser.add_argument("--data", default="scenes", help="data set of the bundle [scenes]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    config = prepare_site(arguments.data, bundle=arguments.bundle, seed=arguments.seed)
    report = make_header("hierarchy")
    for tier in ("local", "cloud"):
        report[tier] = compare_latency(config, tier, arguments.seconds)
    report["sustained"] = [
        measure_rate(config, float(rate), arguments.seconds / 2)
        for rate in arguments.rates.split(",")
    ]
    report["device"] = measure_device(config)
    report |= measure_site_cpu(ROOT, bundle=config.bundle)
    print_report(report, as_json=arguments.json)


if __name__ == "__main__":
    main()
