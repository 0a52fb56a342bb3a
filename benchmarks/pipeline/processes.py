"""The same comparison with real processes on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.processes import read_report_of
from benchmarks.harness.report import Report

RATIOS = (1, 2, 5, 10)
COMMON = 3.0  # every device is so many times slower than this machine: three devices on few cores
BATCHES = 90
TIMEOUT_S = 1800.0
MEASURED = ("--repartition-every", "30")
STATIC = ("--repartition-every", "0", "--equal-capacities")
MODEL = ("--model", "mobilenet-0.25", "--data", "scenes", "--batch", "16")


def measure_processes() -> list[Report]:
    """One row for each ratio of the slowest of three devices to the others."""
    alone_s = train([COMMON], ())["batch_ms"]
    rows = []
    for ratio in RATIOS:
        devices = [COMMON, COMMON, COMMON * ratio]
        ours = train(devices, MEASURED)
        static = train(devices, STATIC)
        rows.append(
            {
                "ratio": ratio,
                "batch_ms": ours["batch_ms"],
                "speedup_over_pipedream": round(static["batch_ms"] / ours["batch_ms"], 2),
                "speedup_over_one_device": round(alone_s / ours["batch_ms"], 2),
                "stages": [stage["layers"] for stage in ours["stages"]],
            }
        )
    return rows


def train(devices: list[float], flags: Sequence[str]) -> dict[str, Any]:
    """The report of one training."""
    words = ["--devices", ",".join(f"{factor:g}" for factor in devices)]
    command = [sys.executable, "-m", "ddnn.cli", "pipeline", "demo", *MODEL, *words, *flags]
    command += ["--batches", str(BATCHES), "--json"]
    return read_report_of(command, TIMEOUT_S)
