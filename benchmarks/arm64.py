"""device_app for arm64, emulated, as one camera of a site of this machine.

    python -m benchmarks.arm64 ~/.cache/ddnn/arm64 --json

Broker, cloud, edge and cameras run natively; then the first camera gives way to one under
emulation (device_app/arm64.sh). Fails unless the edge counts its vote in every answer, in full
quality, and scores, vote and answer are those of the native sections on the same frames within the
tolerance of the bundle's golden vectors. No exit but the cloud's is sure here, so that features
count, too. Start, memory and inference of both are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import psutil

from benchmarks.bare import connect
from benchmarks.hierarchy import NEVER, variant
from ddnn.adapters.broker import free_port
from ddnn.adapters.litert import LiteRtSection
from ddnn.exits.inference import infer, run_devices
from ddnn.exits.sample import make_votes
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import Site, SiteConfig
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer, Scores, Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import GOLDEN_TOLERANCE, load_bundle

SCRIPT = Path(__file__).parents[1] / "device_app" / "arm64.sh"
PYTHON = "/opt/ddnn/bin/python"
RATE_HZ, DEADLINE_S, WINDOW_S = 4.0, 6.0, 2.0  # generous: what is judged here is equality
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


class Listener:
    """When a device was last born, and its scores by sample."""

    def __init__(self, port: int, node: str) -> None:
        self.online_s = 0.0
        self.scores: dict[int, np.ndarray] = {}
        kinds = (Kind.STATUS, Kind.SCORES)
        self._kinds = {str(Topic(SITE, kind, node)): kind for kind in kinds}
        self._client = connect(f"arm64-{time.time_ns()}", port, list(self._kinds))
        self._client.on_message = self._on_message
        self._client.loop_start()

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        match decode(self._kinds[message.topic], message.payload):
            case Status(state="online"):
                self.online_s = time.monotonic()
            case Scores() as scores:
                self.scores[scores.sample] = scores.scores.array()

    def wait_online(self, since_s: float) -> float:
        """Seconds from `since_s` to the birth after it."""
        until_s = time.monotonic() + START_S
        while self.online_s < since_s:
            if time.monotonic() > until_s:
                raise SystemExit(f"error: the device is not online after {START_S:.0f} s")
            time.sleep(0.02)
        return self.online_s - since_s

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def measured(command: list[str], bundle: Path, node: str) -> dict[str, Any]:
    done = subprocess.run(
        [*command, "-c", MEASURE, str(bundle), node],
        stdout=subprocess.PIPE,
        check=True,
        timeout=INSTALL_S,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def take_turn(
    site: Site, listener: Listener, node: str, python: list[str], samples: int
) -> tuple[dict[str, float], list[Answer]]:
    """Run this node by `python`; its figures, and the answers of the site meanwhile."""
    if site.fleet.alive(node):
        site.fleet.signal(node, signal.SIGTERM)
        psutil.Process(site.fleet.pid(node)).wait(10)
    began_s = time.monotonic()
    site.fleet.start(
        node,
        [
            *python,
            "-m",
            "device_app",
            "--node",
            node,
            "--site",
            SITE,
            "--bundle",
            str(site.config.bundle),
            "--state",
            str(site.state),
            "--broker-port",
            str(site.port),
            "--source",
            f"frames:{site.config.frames}",
            "--rate-hz",
            str(RATE_HZ),
            "--deadline-s",
            str(DEADLINE_S),
            "--window-s",
            str(WINDOW_S),
        ],
    )
    took_s = listener.wait_online(began_s)
    time.sleep(2.0)  # its camera is opened
    first = site.tick(0.5) + 1
    wanted = range(first, first + samples)
    until_s = time.monotonic() + samples / RATE_HZ + DEADLINE_S + SETTLE_S
    while not all(sample in site.watcher.answers for sample in wanted):
        site.fleet.check(node)
        if time.monotonic() > until_s:
            raise SystemExit("error: there are samples without an answer")
        time.sleep(0.1)
    resident = psutil.Process(site.fleet.pid(node)).memory_info().rss
    figures = {"online_after_s": round(took_s, 2), "resident_mb": round(resident / 2**20, 1)}
    return figures, [site.watcher.answers[sample] for sample in wanted]


def compare(
    plan: SiteConfig, node: str, answers: list[Answer], listener: Listener
) -> dict[str, Any]:
    """Against this machine's sections on the same frames."""
    bundle = load_bundle(plan.bundle, LiteRtSection)
    images = np.load(plan.frames / "images.npy", mmap_mode="r", allow_pickle=False)
    view = bundle.manifest.hierarchy.devices.index(node)
    scores, voted, answered = [], [], []
    wrong: list[str] = []
    for answer in answers:
        frame = images[answer.sample % len(images)]
        own = run_devices(bundle.manifest, bundle.sections, frame)[view].scores
        label, probability = make_votes({node: own})[node]
        expected = infer(bundle.manifest, bundle.sections, frame)
        if answer.quality != "full" or node not in answer.votes:
            wrong.append(f"sample {answer.sample}: {answer.quality}, votes of {[*answer.votes]}")
            continue
        told = bundle.manifest.score_format.decode(listener.scores[answer.sample])
        scores.append(np.abs(told - own).max())
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
        raise SystemExit("\n".join([f"error: not equal: {differences}", *wrong[:5]]))
    exits = [answer.exit for answer in answers]
    return {
        "samples": len(answers),
        "exits": {name: exits.count(name) for name in sorted(set(exits))},
        "largest_difference": differences,
        "tolerance": GOLDEN_TOLERANCE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("root", type=Path, help="directory of the arm64 Debian; made if missing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--samples", type=int, default=60, help="to compare [60]")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--bundle", type=Path, default=None)
    arguments = parser.parse_args()
    plan = prepare_site(arguments.data, 6, "e", arguments.bundle, 0)
    devices = plan.manifest.hierarchy.devices
    began_s = time.monotonic()
    subprocess.run([SCRIPT, arguments.root], check=True, timeout=INSTALL_S, stdout=sys.stderr)
    report: dict[str, Any] = {
        "command": "python -m benchmarks.arm64",
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "machine": f"{platform.machine()} Python {platform.python_version()}",
        "install_s": round(time.monotonic() - began_s, 1),
    }
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-arm64-")))
        plan.bundle = variant(plan.bundle, state / "bundle", NEVER)
        site = Site(
            plan,
            "mosquitto",
            state,
            rate_hz=RATE_HZ,
            deadline_s=DEADLINE_S,
            window_s=WINDOW_S,
            http_port=free_port(),
        )
        stack.callback(site.close)
        site.start()
        listener = Listener(site.port, devices[0])
        stack.callback(listener.close)
        shares = [f"--share={path}" for path in (plan.frames, state)]
        pythons = {
            "native": [sys.executable],
            "emulated": [str(SCRIPT), str(arguments.root), *shares, PYTHON],
        }
        for way, python in pythons.items():
            figures, answers = take_turn(site, listener, devices[0], python, arguments.samples)
            report[way] = {
                **measured(python, plan.bundle, devices[0]),
                **figures,
                **compare(plan, devices[0], answers, listener),
            }
    if report["emulated"]["machine"] != "aarch64" or report["emulated"]["not_for_devices"]:
        raise SystemExit(f"error: this is no arm64 device: {report['emulated']}")
    print(json.dumps(report, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
