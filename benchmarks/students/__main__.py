"""The students' room on CIFAR-10: accuracy after failures, parameters and latency.

    python -m benchmarks.students --scale small --data DIRECTORY --json

accuracy    RoCoIn in groups of 2, of 4 and as planned, NoNN, averaging-NoNN and heterogeneous
            students, all distilled from one teacher: accuracy for all sets of 0 to 4 failed
            devices of 8, parameters of a device, P(full) (accuracy.py)
latency     the same methods at heterogeneity 1 to 6 with the paper's figures and with those of
            Raspberry Pis, by the room's model (latency.py)
faults      a running site whose workers are killed and stopped, one of every group at a time; only
            with --only faults, on a machine that does nothing else (faults.py)

small takes two hours on two cores; paper has the paper's networks and 200 epochs, for an
accelerator; tiny shows in seconds that every part runs. DIRECTORY holds cifar10_train_jpeg.npz and
cifar10_test5000.npz; by default $DDNN_DATA. Trained networks are kept in --work, and a run that was
killed goes on from there. Nothing is chosen on test images. Exit code 1 where an aim is missed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness.processes import ROOT, interrupt_on_sigterm
from benchmarks.harness.report import (
    Report,
    make_header,
    make_parser,
    print_report,
    progress_bar,
)
from benchmarks.students.accuracy import measure_accuracy
from benchmarks.students.aims import judge_accuracy, judge_latency
from benchmarks.students.faults import measure_faults
from benchmarks.students.latency import measure_latency
from benchmarks.students.networks import Bench
from benchmarks.students.scales import SCALES, Scale
from ddnn.data import Dataset, load
from ddnn.errors import DdnnError
from ddnn.students import StudentType
from ddnn.training.split import split_features
from ddnn.training.students.family import Backbone, describe_student
from ddnn.training.students.teacher import build_teacher

PARTS = ("accuracy", "latency")
FAULTS = "faults"
INPUT_SHAPE = (32, 32, 3)
CLASSES = 10


def main() -> None:
    parser = make_parser(__doc__, "of the validation split, training, plans and devices")
    parser.add_argument("--scale", choices=SCALES, default="small", help="sizes [small]")
    usual = ",".join(PARTS)
    parser.add_argument("--only", default=usual, help=f"parts, by commas [{usual}]")
    parser.add_argument("--data", help="directory of the two files [$DDNN_DATA]")
    parser.add_argument("--quick", action="store_true", help="faults: short: does it run?")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "students",
        help="of trained networks [build/students]",
    )
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := set(parts) - {*PARTS, FAULTS}:
        parser.error(f"--only {min(unknown)!r}: the parts are {', '.join((*PARTS, FAULTS))}")
    interrupt_on_sigterm()
    dataset = None
    if "accuracy" in parts:
        try:
            spec = f"cifar10:{arguments.data}" if arguments.data else "cifar10"
            dataset = load(spec, seed=arguments.seed)
        except DdnnError as error:
            parser.error(str(error))
    report = {
        **make_header("students"),
        "seed": arguments.seed,
        "scale": arguments.scale,
        **measure(SCALES[arguments.scale], arguments.seed, parts, dataset, arguments.work),
    }
    if FAULTS in parts:
        with progress_bar(FAULTS, 1.0) as progress:
            report[FAULTS] = measure_faults(arguments.seed, progress, arguments.quick)
        report["holds"] = report["holds"] and report[FAULTS]["holds"]
    print_report(report, as_json=arguments.json)
    sys.exit(0 if report["holds"] else 1)


def measure(
    scale: Scale, seed: int, parts: list[str], dataset: Dataset | None, work: Path
) -> Report:
    """The parts of the report, the aims and the seconds. dataset: for the accuracy."""
    types, filters = describe_types(scale)
    report: Report = {}
    aims: dict[str, Any] = {}
    if dataset is not None:
        bench = Bench.of(scale, seed, dataset, work)
        report["accuracy"] = measure_accuracy(bench, types)
        aims |= judge_accuracy(report["accuracy"])
        report["budget"] = sum_seconds(report["accuracy"])
    if "latency" in parts:
        with progress_bar("latency", 1.0) as progress:
            report["latency"] = measure_latency(scale, types, filters, seed, progress)
        aims |= judge_latency(report["latency"])
    return {**report, "aims": aims, "holds": all(aim["holds"] for aim in aims.values())}


def describe_types(scale: Scale) -> tuple[tuple[StudentType, ...], int]:
    """The students with the scale's capacities, and the number of the teacher's filters."""
    teacher = split_features(build_teacher(Backbone.parse(scale.teacher), INPUT_SHAPE, CLASSES))
    types = tuple(
        msgspec.structs.replace(
            describe_student(Backbone.parse(name), INPUT_SHAPE, teacher.shape), capacity=capacity
        )
        for name, capacity in scale.students.items()
    )
    return types, teacher.shape[2]


def sum_seconds(part: Report) -> Report:
    """Seconds of training, over all runs, and what was estimated; None: no estimate."""
    rows = {
        "teacher": part["teacher"],
        **{name: row for name, row in part["methods"].items() if "same_plan_as" not in row},
    }
    estimates = [row["estimated_s"] for row in rows.values()]
    return {
        "seconds": sum(row["seconds"] for row in rows.values()),
        "estimated_s": None if None in estimates else sum(estimates),
    }


if __name__ == "__main__":
    main()
