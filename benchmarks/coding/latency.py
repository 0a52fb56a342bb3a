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

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.coding.bare_gather import BareGather, count_blocks
from benchmarks.harness.percentiles import summarize_ms
from benchmarks.harness.report import Progress
from benchmarks.harness.sites import running_broker
from benchmarks.harness.worker_figures import FAULTS, compare_answers, summarize_system
from benchmarks.harness.worker_rounds import ALONE, Schedule, run_rounds
from benchmarks.harness.worker_site import LAYER_TIMEOUT_S, LatencySite, PlannedLayer
from ddnn.coding.detail import read_detail
from ddnn.local_site.bundles import prepare_site, share_layer
from ddnn.local_site.site import SiteConfig
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.plans import read_plan

WORKERS, TOLERATE = 6, 2
AIM_RATIO = 1.1  # p99 with workers missing over p99 without a fault


FULL = Schedule(
    rounds=3,
    cycles=2,
    free_s=2.5,
    hit_s=3.0,
    systems=("coded", "replicate", "none", ALONE),
    alone_s=4.0,
)
QUICK = Schedule(  # at a rate that a slow machine can do
    1,
    1,
    free_s=1.5,
    hit_s=1.5,
    systems=("coded", "none", ALONE),
    alone_s=0.5,
    settle_s=0.3,
    rate_hz=10.0,
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
        site = LatencySite(config, plans, broker, schedule.settle_s, schedule.rate_hz)
        stack.callback(site.close)
        bare_s: tuple[list[float], list[float]] = ([], [])

        def exchange_bare() -> None:
            for seconds, more in zip(
                bare_s, run_bare(site, plans["coded"], schedule.alone_s), strict=True
            ):
                seconds.extend(more)

        run_rounds(
            site,
            schedule,
            lambda random: sorted(
                random.choice(plans["coded"].workers, TOLERATE, replace=False).tolist()
            ),
            np.random.default_rng(seed),
            progress,
            exchange_bare,
        )
    verdicts = compare_answers(config, site.listener.answers)
    report: dict[str, Any] = {
        "rate_hz": schedule.rate_hz,
        "layer": read_detail(plans["coded"].plan).layer,
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
            report[system]["blocks"] = count_blocks(plans[system])
    report["bare"] = {
        "to_enough": summarize_ms(bare_s[0]),
        "to_all": summarize_ms(bare_s[1]),
    }
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


def run_bare(
    site: LatencySite, coded: PlannedLayer, seconds: float
) -> tuple[list[float], list[float]]:
    """The seconds of the bare exchange to enough results and to all of them."""
    gather = BareGather(site, coded)
    try:
        return gather.run(seconds)
    finally:
        gather.close()
