"""Loss curves of real photographs: one device, a pipeline, and a pipeline that loses a device.

    python -m benchmarks.pipeline_curves --data cifar10 --svg docs/pipeline-curves.svg --json

Trains the same network three times with as many steps of the same batches, each time as processes
of this machine (`ddnn pipeline demo`): on one device; over three devices; and over three devices of
which one is killed halfway, without being replaced. Each device has one thread. Reported are the
loss of every batch, the test accuracy, and from the pipelines' timelines what happened.

The pipelines train asynchronously, so that their curves differ from that of one device by more than
the order of sums: with stale weights (weight stashing) and, after the loss, layers that lack the
updates since their copy.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import interrupt_on_sigterm, read_report_of
from benchmarks.harness.report import make_header, make_parser, print_report
from benchmarks.harness.svg import draw_lines

SMOOTHED = 20  # batches
TIMEOUT_S = 3600.0
KEPT = ("test_accuracy", "test_loss", "validation_accuracy", "failures", "terms", "chain_every")


def main() -> None:
    parser = make_parser(__doc__, "of weights and batches")
    parser.add_argument("--data", default="cifar10", help="NAME[:PATH] of the data set [cifar10]")
    parser.add_argument("--model", default="mobilenet-0.25", help="network [mobilenet-0.25]")
    parser.add_argument("--batches", type=int, default=400, help="of each training [400]")
    parser.add_argument("--batch", type=int, default=64, help="samples of a batch [64]")
    parser.add_argument("--svg", type=Path, help="file to draw the curves to")
    options = parser.parse_args()
    interrupt_on_sigterm()
    half = options.batches // 2
    variants = {
        "one device": ["--devices", "1"],
        "pipeline": ["--devices", "1,1,1"],
        "pipeline, a device killed": ["--devices", "1,1,1", "--kill", f"worker2@{half}"],
    }
    runs = {name: train(options, flags) for name, flags in variants.items()}
    curves = {name: run["losses"] for name, run in runs.items()}
    alone = runs["one device"]["test_accuracy"]
    noise = math.sqrt(2 * alone * (1 - alone) / 10_000)  # of two accuracies of so many samples
    if options.svg:
        lines = {name: smooth(losses) for name, losses in curves.items()}
        title = f"{options.model} on {options.data.partition(':')[0]}"
        axes = ("batch", f"loss, mean of {SMOOTHED} batches")
        options.svg.write_text(draw_lines(lines, title, axes, {"killed": half}))
    report = {
        **make_header("pipeline_curves"),
        "killed_at": half,
        "runs": {name: summarize(run) for name, run in runs.items()},
        "accuracy_minus_one_device": {
            name: round(run["test_accuracy"] - alone, 4) for name, run in runs.items()
        },
        "two_standard_errors": round(2 * noise, 4),
        "losses": curves if options.json else {name: losses[-1] for name, losses in curves.items()},
    }
    print_report(report, as_json=options.json)


def train(options: Any, flags: list[str]) -> dict[str, Any]:
    """One training as a process of its own; its report."""
    keys = ("data", "model", "batches", "batch", "seed")
    shared = [word for key in keys for word in (f"--{key}", str(getattr(options, key)))]
    command = [sys.executable, "-m", "ddnn.cli", "pipeline", "demo", *shared, *flags, "--json"]
    return read_report_of(command, TIMEOUT_S)


def summarize(run: dict[str, Any]) -> dict[str, Any]:
    """The figures of a training, and how its cut changed."""
    kinds = ("layout", "restart")
    happened = [e for e in run["timeline"] if e["kind"] in kinds]
    return {key: run[key] for key in KEPT} | {"timeline": happened}


def smooth(losses: list[float | None]) -> list[tuple[float, float]]:
    """Means of consecutive batches, at their middle; None: that batch was not reported."""
    points = []
    for start in range(0, len(losses) - SMOOTHED + 1, SMOOTHED // 2):
        part = [loss for loss in losses[start : start + SMOOTHED] if loss is not None]
        if part:
            points.append((start + SMOOTHED / 2, sum(part) / len(part)))
    return points


if __name__ == "__main__":
    main()
