"""A running site of students of which one member of every group dies; part `faults`.

students   8 workers in groups; in each phase one member of every group vanishes, drawn at random
alone      the edge computes its section itself: no workers

Latency is from the capture tick to the arrival of the answer at a listener; workers are killed and
stopped as in the benchmark of coded layers (benchmarks/coding/latency.py). As long as a member of
each group lives, every answer must be the fault-free one. Only speed and answers are judged, so
that the students are trained for a few steps.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.report import Progress
from benchmarks.harness.sites import running_broker
from benchmarks.harness.worker_figures import FAULTS, compare_answers, summarize_system
from benchmarks.harness.worker_rounds import ALONE, Schedule, run_rounds
from benchmarks.harness.worker_site import LAYER_TIMEOUT_S, LatencySite, PlannedLayer
from ddnn.adapters.matrices import load_section
from ddnn.core.plan import Plan, PlanRequest
from ddnn.core.section import Array, Arrays
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.planning import parse_workers, plan_bundle
from ddnn.local_site.site import SiteConfig
from ddnn.rooms import find_room
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.home import find_home
from ddnn.runtime.plans import PlanDirectory, read_plan
from ddnn.students.detail import FEATURES, PORTION, read_detail
from ddnn.students.portions import join_portions

STUDENTS = "students"
WORKERS = 8
STEPS = 20  # of training: the speed of a student does not depend on its weights
AIM_RATIO = 1.1  # p99 with a member of every group dead over p99 without a fault

FULL = Schedule(rounds=3, cycles=2, free_s=2.5, hit_s=3.0, systems=(STUDENTS, ALONE))
QUICK = Schedule(1, 1, free_s=0.5, hit_s=0.6, systems=(STUDENTS, ALONE), settle_s=0.3)


class StudentEdge:
    """The edge's section as the students and the tail compute it without a fault."""

    def __init__(self, directory: Path, bundle: str) -> None:
        plans = PlanDirectory(directory, bundle, load_section, find_room)
        plan = plans.read()
        self._detail = read_detail(plan)
        self._fill = np.asarray(self._detail.fill_values, np.float32)
        self._students = [plans.load(plan.key(k)) for k in range(len(plan.pieces))]
        self._tail = plans.load(plan.key("tail"))

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        portions = {k: student(inputs)[PORTION] for k, student in enumerate(self._students)}
        joined = join_portions(portions, self._detail.filters, self._fill)
        return self._tail({FEATURES: joined})

    def example(self) -> dict[str, Array]:
        return self._students[0].example()


def measure_faults(
    seed: int,
    progress: Progress,
    quick: bool = False,
    config: SiteConfig | None = None,
    plan: PlannedLayer | None = None,
) -> dict[str, Any]:
    """The report of this part. config, plan: by default the demo's site, with students that are
    made for it once."""
    schedule = QUICK if quick else FULL
    config = config or prepare_site("scenes", cut=True)
    planned = plan or plan_students(config)
    groups = list_groups(planned.plan)
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker())
        site = LatencySite(config, {STUDENTS: planned}, broker, schedule.settle_s, schedule.rate_hz)
        stack.callback(site.close)
        run_rounds(
            site,
            schedule,
            lambda random: [str(random.choice(members)) for members in groups],
            np.random.default_rng(seed),
            progress,
        )
    edge = StudentEdge(planned.path, read_manifest(config.bundle)[1])
    verdicts = {
        STUDENTS: compare_answers(config, site.listener.answers, edge),
        ALONE: compare_answers(config, site.listener.answers),
    }
    report: dict[str, Any] = {
        "rate_hz": schedule.rate_hz,
        "groups": [len(members) for members in groups],
        "layer_timeout_ms": 1e3 * LAYER_TIMEOUT_S,
        "rounds": schedule.rounds,
        "losses": site.losses,
    }
    for system in schedule.systems:
        phases = [phase for phase in site.phases if phase.system == system]
        report[system] = summarize_system(phases, verdicts[system], site.listener.states)
    found = report[STUDENTS]
    ratios = [found[condition]["ratio_p99"] for condition in ("killed", "stopped")]
    report["aim_ratio_p99"] = AIM_RATIO
    report["answers_hold"] = not any(found[fault] for fault in FAULTS)
    report["ratio_judged"] = not quick  # some tens of samples have no p99
    reached = quick or all(ratio <= AIM_RATIO for ratio in ratios)
    report["holds"] = report["answers_hold"] and reached
    return report


def plan_students(config: SiteConfig) -> PlannedLayer:
    """Students for the site's edge on WORKERS devices, made once."""
    bundle = read_manifest(config.bundle)[1]
    out = find_home() / "plans" / f"{bundle}-{STUDENTS}-{WORKERS}-{STEPS}-steps"
    if not (out / "plan.json").exists():
        request = PlanRequest(STUDENTS, parse_workers(str(WORKERS)), steps=STEPS)
        plan_bundle(config.bundle, out, request)
    return PlannedLayer(out, read_plan(out, bundle))


def list_groups(plan: Plan) -> list[list[str]]:
    """The members of each group."""
    return [
        [name for name, held in plan.placement.items() if group in held]
        for group in range(len(plan.pieces))
    ]
