"""Processor time per sample of every process of a site.

    python -m benchmarks.site_cpu --rate-hz 50 --seconds 10 --json

`ddnn demo` runs a site whose samples all exit locally; the user and system time of its processes
is read from outside over a steady span and divided by the number of samples captured in it. A
device is the mean of all devices. The site can be that of another checkout (--tree), because only
the command line of `ddnn demo` and the modules' names are relied on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness.processes import (
    ROOT,
    CpuMeter,
    end_process,
    environment_of,
    interrupt_on_sigterm,
    make_flags,
    temporary_directory,
)
from benchmarks.harness.report import make_header, make_parser, print_report
from ddnn.adapters.broker import free_port
from ddnn.errors import DdnnError

ROLES = ("edge", "device", "cloud", "dashboard", "broker")
DEVICES = 6
START_S = 600.0  # a bundle is trained where there is none yet
SETTLE_S = 8.0  # from the start of the last process, so that start-up is not counted
END_S = 60.0
POLL_S = 0.1


def find_role(command: Sequence[str]) -> str | None:
    """The role of a process of a site by its command line; None if it has none."""
    if command and Path(command[0]).name == "mosquitto":
        return "broker"
    words = set(command)
    if "cloud_app" in words:
        return "dashboard" if "page" in words else "cloud"
    return "edge" if "edge_app" in words else "device" if "device_app" in words else None


def find_processes(parent: int) -> dict[str, list[int]]:
    """The process ids of the site that `parent` started, by role."""
    found: dict[str, list[int]] = defaultdict(list)
    for process in psutil.Process(parent).children(recursive=True):
        try:
            role = find_role(process.cmdline())
        except psutil.Error:  # it has just ended
            continue
        if role is not None:
            found[role].append(process.pid)
    return found


def measure_site_cpu(
    tree: Path,
    rate_hz: float = 50.0,
    seconds: float = 10.0,
    bundle: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """CPU milliseconds per sample by role, and what became of the samples.

    tree: checkout whose `ddnn demo` runs. `local_share` and `full_share` say which shares of the
    run's samples were answered by the local exit and with all devices: on a machine that is too
    busy they are below 1. DdnnError where the site does not start.
    """
    samples = int(rate_hz * (SETTLE_S + seconds + 2.0))
    options = {"samples": samples, "rate": rate_hz, "threshold": "local=1", "devices": DEVICES}
    options |= {"broker": "mosquitto", "seed": seed}
    if bundle is not None:
        options["bundle"] = bundle.resolve()
    command = [
        sys.executable,
        "-m",
        "ddnn.cli",
        "demo",
        "--headless",
        "--json",
        "--http-port",
        str(free_port()),  # the default may be another demo's
        *make_flags(options),
    ]
    with temporary_directory() as directory, (directory / "demo.log").open("w+") as log:
        demo = subprocess.Popen(
            command,
            cwd=tree,
            env=environment_of(tree),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            wait_for_processes(demo)
            time.sleep(SETTLE_S)
            meter = make_meter(find_processes(demo.pid))
            time.sleep(seconds)
            used_s, counted = meter.used_s(), rate_hz * meter.elapsed_s()
            output, _ = demo.communicate(timeout=END_S)
            report = json.loads(output)
        except (ValueError, TimeoutError, subprocess.TimeoutExpired) as error:
            log.seek(0)
            lines = log.read().strip().splitlines() or ["no output"]
            raise DdnnError(f"ddnn demo in {tree} did not run: {lines[-1]} ({error})") from None
        finally:
            end_process(demo)
    return {
        "cpu_ms_per_sample": average_roles(used_s, counted),
        "cpu_span": {
            "rate_hz": rate_hz,
            "samples": round(counted),
            "local_share": round(report["exit_share"]["local"], 3),
            "full_share": round(report["quality"]["full"] / samples, 3),
        },
    }


def wait_for_processes(demo: subprocess.Popen[str]) -> None:
    """Until all processes of the site are there; TimeoutError where they are not."""
    until_s = time.monotonic() + START_S
    while demo.poll() is None and time.monotonic() < until_s:
        found = find_processes(demo.pid)
        if all(found[role] for role in ROLES) and len(found["device"]) == DEVICES:
            return
        time.sleep(POLL_S)
    raise TimeoutError("not all processes are there")


def make_meter(processes: dict[str, list[int]]) -> CpuMeter:
    return CpuMeter({f"{role}/{pid}": pid for role, pids in processes.items() for pid in pids})


def average_roles(used_s: dict[str, float], samples: float) -> dict[str, float]:
    """Milliseconds per sample by role, of its processes the mean."""
    by_role = {role: [s for name, s in used_s.items() if name.startswith(role)] for role in ROLES}
    return {role: round(1e3 * sum(s) / len(s) / samples, 2) for role, s in by_role.items()}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to measure [this one]")
    parser.add_argument("--rate-hz", type=float, default=50.0, help="samples per second [50]")
    parser.add_argument("--seconds", type=float, default=10.0, help="span that is measured [10]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    found = measure_site_cpu(
        arguments.tree, arguments.rate_hz, arguments.seconds, arguments.bundle, arguments.seed
    )
    print_report({**make_header("site_cpu"), **found}, as_json=arguments.json)


if __name__ == "__main__":
    main()
