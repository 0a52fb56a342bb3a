"""device_app for arm64, emulated, as one camera of a site of this machine.

    python -m benchmarks.arm64 ~/.cache/ddnn/arm64 --json

Broker, cloud, edge and cameras run natively; then the first camera is replaced by one under
emulation (device_app/arm64.sh). Fails unless the edge counts its vote in every answer, in full
quality, and scores, vote and answer are those of the native sections on the same frames within the
tolerance of the bundle's golden vectors. No exit but the cloud's is sure here, so that features
count, too. Start, memory and inference of both are measured.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.harness.listener import Listener
from benchmarks.harness.processes import ROOT, interrupt_on_sigterm, make_flags, resident_mb
from benchmarks.harness.report import make_header, make_parser, print_report
from benchmarks.harness.sites import EXIT_NEVER, running_site
from ddnn.adapters.litert import LiteRtSection
from ddnn.core.section import GOLDEN_TOLERANCE
from ddnn.errors import ConfigError, DdnnError
from ddnn.exits.inference import infer, run_devices
from ddnn.exits.sample import make_votes
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import Site, SiteConfig
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer, Scores, Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import load_bundle

SCRIPT = ROOT / "device_app" / "arm64.sh"
PYTHON = "/opt/ddnn/bin/python"
RATE_HZ, DEADLINE_S, WINDOW_S = 4.0, 6.0, 2.0  # long, because only equality is judged
INSTALL_S, START_S, SETTLE_S = 900.0, 90.0, 15.0

# Runs in both: the machine, what a device must not install, and how long the section takes.
MEASURE = """
import importlib.util, json, platform, sys, time
from pathlib import Path
from ddnn.adapters.litert import LiteRtSection
from ddnn.runtime.bundle import load_bundle
section = load_bundle(Path(sys.argv[1]), LiteRtSection, [sys.argv[2]]).sections[sys.argv[2]]
example, times = section.example(), []
for _ in range(300):
    began = time.perf_counter()
    section(example)
    times.append(time.perf_counter() - began)
print(json.dumps({
    "machine": platform.machine(),
    "python": platform.python_version(),
    "inference_p50_us": round(1e6 * sorted(times)[150], 1),
    "not_for_devices": [name for name in ("tensorflow", "keras", "flask", "sqlalchemy", "cloud_app")
                        if importlib.util.find_spec(name)],
}))
"""


class DeviceListener:
    """When a device last came online, and its scores by sample."""

    def __init__(self, port: int, node: str) -> None:
        self.online_s = 0.0
        self.scores: dict[int, np.ndarray] = {}
        kinds = (Kind.STATUS, Kind.SCORES)
        self._kinds = {str(Topic(SITE, kind, node)): kind for kind in kinds}
        self._listener = Listener("arm64", port, list(self._kinds), self._on_message).start()

    def _on_message(self, topic: str, payload: bytes) -> None:
        match decode(self._kinds[topic], payload):
            case Status(state="online"):
                self.online_s = time.monotonic()
            case Scores() as scores:
                self.scores[scores.sample] = scores.scores.array()

    def wait_online(self, since_s: float) -> float:
        """Seconds from `since_s` until the device is online."""
        until_s = time.monotonic() + START_S
        while self.online_s < since_s:
            if time.monotonic() > until_s:
                raise DdnnError(f"the device is not online after {START_S:.0f} s")
            time.sleep(0.02)
        return self.online_s - since_s

    def close(self) -> None:
        self._listener.close()


def measure_section(command: list[str], bundle: Path, node: str) -> dict[str, Any]:
    """What MEASURE prints under the command `command` of a Python."""
    done = subprocess.run(
        [*command, "-c", MEASURE, str(bundle), node],
        stdout=subprocess.PIPE,
        check=True,
        timeout=INSTALL_S,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_device(
    site: Site, listener: DeviceListener, node: str, python: list[str], samples: int
) -> tuple[dict[str, float], list[Answer]]:
    """Run this node by the command `python`; its figures, and the answers of the site meanwhile."""
    if site.fleet.is_alive(node):
        site.fleet.send_signal(node, signal.SIGTERM)
        psutil.Process(site.fleet.find_pid(node)).wait(10)
    began_s = time.monotonic()
    options = {
        "node": node,
        "site": SITE,
        "bundle": site.config.bundle,
        "state": site.state,
        "broker-port": site.port,
        "source": f"frames:{site.config.frames}",
        "rate-hz": RATE_HZ,
        "deadline-s": DEADLINE_S,
        "window-s": WINDOW_S,
    }
    site.fleet.start(node, [*python, "-m", "device_app", *make_flags(options)])
    took_s = listener.wait_online(began_s)
    time.sleep(2.0)  # until its camera is open
    first = site.tick(0.5) + 1
    numbers = range(first, first + samples)
    until_s = time.monotonic() + samples / RATE_HZ + DEADLINE_S + SETTLE_S
    while not all(sample in site.watcher.answers for sample in numbers):
        site.fleet.require_alive(node)
        if time.monotonic() > until_s:
            raise DdnnError("there are samples without an answer")
        time.sleep(0.1)
    memory_mb = round(resident_mb(site.fleet.find_pid(node)), 1)
    figures = {"online_after_s": round(took_s, 2), "resident_mb": memory_mb}
    return figures, [site.watcher.answers[sample] for sample in numbers]


def compare(
    config: SiteConfig, node: str, answers: list[Answer], listener: DeviceListener
) -> dict[str, Any]:
    """Compare a device with the sections on the same frames. DdnnError where they differ."""
    bundle = load_bundle(config.bundle, LiteRtSection)
    images = np.load(config.frames / "images.npy", mmap_mode="r", allow_pickle=False)
    view = bundle.manifest.hierarchy.devices.index(node)
    scores, voted, answered = [], [], []
    wrong: list[str] = []
    for answer in answers:
        frame = images[answer.sample % len(images)]
        own = run_devices(bundle.manifest, bundle.sections, frame)[view].scores
        expected = infer(bundle.manifest, bundle.sections, frame)
        if own is None or answer.quality != "full" or node not in answer.votes:
            wrong.append(f"sample {answer.sample}: {answer.quality}, votes of {[*answer.votes]}")
            continue
        label, probability = make_votes({node: own})[node]
        published = bundle.manifest.score_format.decode(listener.scores[answer.sample])
        scores.append(np.abs(published - own).max())
        voted.append(abs(answer.votes[node][1] - probability))
        answered.append(np.abs(np.subtract(answer.probabilities, expected.probabilities)).max())
        if (answer.votes[node][0], answer.label, answer.exit) != (
            label,
            expected.label,
            expected.exit,
        ):
            wrong.append(f"sample {answer.sample}: {answer} where {expected} was expected")
    differences = {
        name: float(np.max(values, initial=0.0))
        for name, values in (("scores", scores), ("votes", voted), ("probabilities", answered))
    }
    if wrong or max(differences.values()) > GOLDEN_TOLERANCE:
        raise DdnnError("\n".join([f"not equal: {differences}", *wrong[:5]]))
    exits = [answer.exit for answer in answers]
    return {
        "samples": len(answers),
        "exits": {name: exits.count(name) for name in sorted(set(exits))},
        "largest_difference": differences,
        "tolerance": GOLDEN_TOLERANCE,
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("root", type=Path, help="directory of the arm64 Debian; made if missing")
    parser.add_argument("--samples", type=int, default=60, help="to compare [60]")
    parser.add_argument("--data", default="scenes", help="data set of the bundle [scenes]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    config = prepare_site(arguments.data, bundle=arguments.bundle, seed=arguments.seed)
    device = config.manifest.hierarchy.devices[0]
    began_s = time.monotonic()
    subprocess.run([SCRIPT, arguments.root], check=True, timeout=INSTALL_S, stdout=sys.stderr)
    report = make_header("arm64")
    report["install_s"] = round(time.monotonic() - began_s, 1)
    options: dict[str, Any] = {"rate_hz": RATE_HZ, "deadline_s": DEADLINE_S, "window_s": WINDOW_S}
    with ExitStack() as stack:
        site = stack.enter_context(running_site(config, EXIT_NEVER, **options))
        listener = DeviceListener(site.port, device)
        stack.callback(listener.close)
        shares = [f"--share={path}" for path in (site.config.frames, site.state)]
        pythons = {
            "native": [sys.executable],
            "emulated": [str(SCRIPT), str(arguments.root), *shares, PYTHON],
        }
        for name, python in pythons.items():
            figures, answers = run_device(site, listener, device, python, arguments.samples)
            report[name] = {
                **measure_section(python, site.config.bundle, device),
                **figures,
                **compare(site.config, device, answers, listener),
            }
    if report["emulated"]["machine"] != "aarch64" or report["emulated"]["not_for_devices"]:
        raise ConfigError(f"{arguments.root} is no arm64 device: {report['emulated']}")
    print_report(report, as_json=arguments.json)


if __name__ == "__main__":
    main()
