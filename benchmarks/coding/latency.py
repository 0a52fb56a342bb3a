"""A layer shared among workers that die and stall; part `latency` of benchmarks.coding.

One broker and one set of cameras; what changes is the edge and its workers, a new set of processes
for each system and round:

coded      any 2 of the 6 workers may vanish (MDS code, 4 blocks)
replicate  the same by copies: 2 blocks, each three times
none       6 blocks, nothing spare: the edge waits for its layer time-out, then computes the section
           itself, and at once while it knows that a worker is missing
alone      the edge computes its section itself: no workers, the lowest latency
bare       while the edge works alone: paho clients that pass the bytes of a task and its results

Latency is from the capture tick to the arrival of the answer at a listener. Workers are killed or
stopped at a random moment while a sample is under way; samples under way count as hit. A stopped
worker is as one whose power or network failed: its connection stays silent. A killed one's socket
is closed by its system, so that the broker publishes its death at once.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.coding.bare_gather import BareGather
from benchmarks.coding.latency_figures import FAULTS, compare_answers, summarize_system
from benchmarks.coding.latency_site import LAYER_TIMEOUT_S, RATE_HZ, LatencySite, PlannedLayer
from benchmarks.harness.percentiles import summarize_ms
from benchmarks.harness.report import Progress
from benchmarks.harness.sites import running_broker
from ddnn.local_site.bundles import prepare_site, share_layer
from ddnn.local_site.site import SiteConfig
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.plans import read_plan

WORKERS, TOLERATE = 6, 2
AIM_RATIO = 1.1  # p99 with workers missing over p99 without a fault


@dataclass(frozen=True)
class Schedule:
    """How many rounds are measured, and the seconds of each phase."""

    rounds: int
    cycles: int  # of the coded system, per round
    free_s: float
    hit_s: float
    bare_s: float
    settle_s: float = 1.5  # after a start, before samples count
    systems: tuple[str, ...] = ("coded", "replicate", "none", "alone")

    def total_s(self) -> float:
        """An estimate, for the progress bar."""
        cycles = self.cycles + len(self.systems) - 2
        cycle_s = 2 * self.free_s + 2 * self.hit_s + 3.0 + self.settle_s
        starts_s = len(self.systems) * (2.5 + self.settle_s)
        return self.rounds * (starts_s + cycles * cycle_s + self.free_s + self.bare_s)


FULL = Schedule(rounds=3, cycles=2, free_s=2.5, hit_s=3.0, bare_s=4.0)
QUICK = Schedule(
    1, 1, free_s=0.5, hit_s=0.6, bare_s=0.5, settle_s=0.3, systems=("coded", "none", "alone")
)


def measure_latency(
    seed: int, progress: Progress, quick: bool = False, config: SiteConfig | None = None
) -> dict[str, Any]:
    """The report of this part. progress: share done, text; config: by default the demo's site."""
    config, schedule = config or prepare_shared_site(), QUICK if quick else FULL
    tolerated = {"coded": TOLERATE, "replicate": TOLERATE, "none": 0}
    plans = {
        system: plan_layer(config, system, WORKERS, tolerate)
        for system, tolerate in tolerated.items()
        if system in schedule.systems
    }
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker())
        site = LatencySite(config, plans, broker, schedule.settle_s)
        stack.callback(site.close)
        random = np.random.default_rng(seed)
        to_enough_s, to_all_s = run_rounds(site, plans["coded"], random, progress, schedule)
    verdicts = compare_answers(config, site.listener.answers)
    report: dict[str, Any] = {
        "rate_hz": RATE_HZ,
        "layer": plans["coded"].detail.layer,
        "workers": WORKERS,
        "tolerate": TOLERATE,
        "layer_timeout_ms": 1e3 * LAYER_TIMEOUT_S,
        "rounds": schedule.rounds,
        "losses": site.losses,
    }
    for system in schedule.systems:
        phases = [phase for phase in site.phases if phase.system == system]
        report[system] = summarize_system(phases, verdicts, site.listener.states)
        if system in plans:
            report[system]["blocks"] = plans[system].blocks
    report["bare"] = {"to_enough": summarize_ms(to_enough_s), "to_all": summarize_ms(to_all_s)}
    coded = report["coded"]
    ratios = [coded[condition]["ratio_p99"] for condition in ("killed", "stopped")]
    report["aim_ratio_p99"] = AIM_RATIO
    report["answers_hold"] = not any(coded[fault] for fault in FAULTS)
    report["ratio_judged"] = not quick  # some tens of samples have no p99
    reached = quick or all(ratio <= AIM_RATIO for ratio in ratios)
    report["holds"] = report["answers_hold"] and reached
    return report


def prepare_shared_site() -> SiteConfig:
    """The demo's site, whose bundle can be cut; trained if there is none yet."""
    return prepare_site("scenes", cut=True)


def plan_layer(config: SiteConfig, redundancy: str, workers: int, tolerate: int) -> PlannedLayer:
    """A plan for the site's edge, kept where the demo keeps its own."""
    shared = replace(config)
    share_layer(shared, redundancy, workers, tolerate)
    assert shared.plan is not None
    return PlannedLayer(shared.plan, read_plan(shared.plan, read_manifest(config.bundle)[1]))


def run_rounds(
    site: LatencySite,
    coded: PlannedLayer,
    random: np.random.Generator,
    progress: Progress,
    schedule: Schedule,
) -> tuple[list[float], list[float]]:
    """All rounds; the seconds of the bare exchange to enough results and to all of them."""
    began_s, total_s = time.monotonic(), schedule.total_s()
    names = coded.workers
    bare_s: tuple[list[float], list[float]] = ([], [])
    for round_ in range(schedule.rounds):
        losses = [
            (sorted(random.choice(names, TOLERATE, replace=False).tolist()), random.uniform())
            for _ in range(2 * schedule.cycles)
        ]
        for system in schedule.systems[:: 1 if round_ % 2 == 0 else -1]:
            done = (time.monotonic() - began_s) / total_s
            progress(min(done, 0.99), f"{system}, round {round_ + 1} of {schedule.rounds}")
            site.start_system(system)
            if system == "alone":
                site.run_free(schedule.free_s)
                for seconds, more in zip(bare_s, run_bare(site, coded, schedule), strict=True):
                    seconds.extend(more)
                continue
            for cycle in range(schedule.cycles if system == "coded" else 1):
                kinds = (signal.SIGKILL, signal.SIGSTOP)
                for kind, (workers, share) in zip(kinds, losses[2 * cycle :], strict=False):
                    site.run_free(schedule.free_s)
                    site.strike(kind, workers, share, schedule.hit_s)
    progress(1.0, "latency")
    return bare_s


def run_bare(
    site: LatencySite, coded: PlannedLayer, schedule: Schedule
) -> tuple[list[float], list[float]]:
    gather = BareGather(site, coded)
    try:
        return gather.run(schedule.bare_s)
    finally:
        gather.close()
