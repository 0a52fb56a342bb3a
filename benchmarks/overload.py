"""Goodput of a site that is offered more samples than its machine can answer.

    python -m benchmarks.overload --seconds 20 --json

All samples exit locally. First the capacity is measured: the full answers per second of a site that
is offered far too many samples (--probe-hz). Then a site is run at 1, 1.5, 2, 4 and 8 times that
rate, each again. Of a steady span, after --settle-s:

goodput_hz   samples per second that were answered in full
ratio        goodput over the greatest goodput of all runs, the capacity's too
degraded     samples answered otherwise
shed         samples that the site's pace left out
unanswered   samples that have no answer and that no pace of the last seconds sheds
p99_ms       from the capture tick to the answer
edge_mb      resident memory of the edge at the begin and the end of the span

At last a site at 0.8 of the capacity meets other processes that take the processor, until it
thins, and these end: return_s is how long it takes until all ticks are taken again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness.percentiles import quantiles_ms
from benchmarks.harness.processes import interrupt_on_sigterm, resident_mb
from benchmarks.harness.report import make_header, make_parser, print_report, progress_bar
from benchmarks.harness.sites import EXIT_ALWAYS, running_site
from ddnn.core.pace import ALL
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import Site, SiteConfig

FACTORS = (1.0, 1.5, 2.0, 4.0, 8.0)
GOODPUT_WITHIN = 0.9  # of the greatest
RETURN_AT = 0.8  # of the capacity
RETURN_WITHIN_S = 10.0
THIN_S = 20.0  # the longest to wait until a busy machine makes the site thin
RETURN_S = 30.0  # the longest to wait for its return
HOGS_PER_CORE = 4
HIGHEST_HZ = 1000.0  # of a device


def measure_load(
    config: SiteConfig, rate_hz: float, settle_s: float, seconds: float
) -> dict[str, Any]:
    """What becomes of the samples of a steady span at a rate."""
    rate_hz = min(rate_hz, HIGHEST_HZ)
    with running_site(config, EXIT_ALWAYS, rate_hz=rate_hz) as site:
        lead = site.fleet.find_pid(config.manifest.hierarchy.lead)
        time.sleep(settle_s)
        before_mb, first = resident_mb(lead), site.tick()
        time.sleep(seconds)
        samples, after_mb = range(first, site.tick()), resident_mb(lead)
        time.sleep(site.deadline_s + 1.0)
        return {
            "offered_hz": round(rate_hz, 1),
            **judge_samples(site, samples, seconds),
            "edge_mb": [round(before_mb, 1), round(after_mb, 1)],
        }


def judge_samples(site: Site, samples: range, seconds: float) -> dict[str, Any]:
    """Goodput, what was shed, and latencies, by what a listener heard."""
    with site.watcher.lock:
        answers = dict(site.watcher.answers)
    found = [answers[sample] for sample in samples if sample in answers]
    missing = [sample for sample in samples if sample not in answers]
    full = sum(answer.quality == "full" for answer in found)
    return {
        "samples": len(samples),
        "goodput_hz": round(full / seconds, 1),
        "degraded": len(found) - full,
        "shed": sum(not site.is_expected(sample) for sample in missing),
        "unanswered": sum(site.is_expected(sample) for sample in missing),
        **quantiles_ms([a.answered_at_s - a.captured_at_s for a in found]),
    }


@contextmanager
def running_hogs(number: int) -> Iterator[None]:
    """Processes that take the processor."""
    command = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def measure_return(config: SiteConfig, rate_hz: float, settle_s: float) -> dict[str, Any]:
    """How long a site takes until it takes all ticks again after the machine was busy."""
    with running_site(config, EXIT_ALWAYS, rate_hz=rate_hz) as site:
        time.sleep(settle_s)
        with running_hogs(HOGS_PER_CORE * psutil.cpu_count()):
            thinned_s = wait_for_share(site, thinned=True, timeout_s=THIN_S)
            least = site.watcher.pace.newest.share / ALL
        returned_s = wait_for_share(site, thinned=False, timeout_s=RETURN_S)
    return {
        "rate_hz": round(rate_hz, 1),
        "thinned_s": thinned_s,
        "share_taken": round(least, 3),
        "return_s": returned_s,
    }


def wait_for_share(site: Site, *, thinned: bool, timeout_s: float) -> float | None:
    """Seconds until ticks are thinned, or all are taken; None where that does not happen."""
    began_s = time.monotonic()
    while (site.watcher.pace.newest.share < ALL) is not thinned:
        if time.monotonic() > began_s + timeout_s:
            return None
        time.sleep(0.05)
    return round(time.monotonic() - began_s, 2)


def judge(report: dict[str, Any]) -> list[str]:
    """What does not hold."""
    loads = report["loads"]
    wrong = [
        f"{factor} times the capacity: goodput {load['ratio']:.2f} of the greatest"
        for factor, load in loads.items()
        if load["ratio"] < GOODPUT_WITHIN
    ]
    returned_s = report["return"]["return_s"]
    if returned_s is None or returned_s > RETURN_WITHIN_S:
        wrong.append(f"returned to all ticks after {returned_s} s")
    return wrong


def parse_factors(text: str) -> Sequence[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="span that is judged [20]")
    parser.add_argument("--settle-s", type=float, default=6.0, help="before that span [6]")
    parser.add_argument("--probe-hz", type=float, default=400.0, help="to find the capacity [400]")
    parser.add_argument(
        "--factors", type=parse_factors, default=FACTORS, help="of the capacity [1,1.5,2,4,8]"
    )
    parser.add_argument("--data", default="scenes", help="data set of the bundle [scenes]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    config = prepare_site(arguments.data, bundle=arguments.bundle, seed=arguments.seed)
    span = {"settle_s": arguments.settle_s, "seconds": arguments.seconds}
    report = make_header("overload")
    with progress_bar("overload", len(arguments.factors) + 2) as progress:
        progress(0, "capacity")
        probe = measure_load(config, arguments.probe_hz, **span)
        capacity_hz = probe["goodput_hz"]
        loads = {}
        for done, factor in enumerate(arguments.factors, 1):
            progress(done, f"{factor:g} times the capacity")
            loads[f"{factor:g}"] = measure_load(config, factor * capacity_hz, **span)
        progress(len(loads) + 1, "return")
        returned = measure_return(config, RETURN_AT * capacity_hz, arguments.settle_s)
    greatest_hz = max(load["goodput_hz"] for load in (probe, *loads.values()))
    for load in (probe, *loads.values()):
        load["ratio"] = round(load["goodput_hz"] / max(greatest_hz, 1e-9), 3)
    report |= {"capacity": probe, "loads": loads, "return": returned}
    report["failures"] = judge(report)
    print_report(report, as_json=arguments.json)
    if report["failures"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
