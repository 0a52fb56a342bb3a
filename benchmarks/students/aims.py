"""What the measurements are to show, and whether they do."""

from __future__ import annotations

from typing import Any

from benchmarks.students.latency import list_faster
from benchmarks.students.methods import ROCOIN

SINGLE_LOSS = 0.3  # points of accuracy after any single failure
FOUR_LOSS = 1.0  # points after four failures of eight in groups of four, the mean of all sets
TEACHER_LOSS = 2.0  # points below the teacher without failures
FEWER_PARAMETERS = 4.0  # times, per device, than the teacher


def judge_accuracy(part: dict[str, Any]) -> dict[str, Any]:
    """The aims of the accuracies; losses in points."""
    methods, teacher = part["methods"], part["teacher"]["accuracy"]
    rows = {name: methods[name]["filled"] for name in ROCOIN}
    single = {name: row["0"]["mean"] - row["1"]["least"] for name, row in rows.items()}
    four = rows["rocoin-2x4"]["0"]["mean"] - rows["rocoin-2x4"]["4"]["mean"]
    below = {
        name: teacher - row["0"]["mean"]
        for name, row in rows.items()
        if methods[name]["teacher_over_device"] >= FEWER_PARAMETERS
    }
    averaging = methods["averaging-nonn"]
    equal = [
        methods[name]["p_full"]
        for name in ROCOIN
        if methods[name]["mean_parameters"] <= averaging["mean_parameters"]
    ]
    return {
        "single_failure": {
            "loss": single,
            "aim": SINGLE_LOSS,
            "holds": max(single.values()) <= SINGLE_LOSS,
        },
        "four_failures_in_groups_of_four": {
            "loss": four,
            "aim": FOUR_LOSS,
            "holds": four <= FOUR_LOSS,
        },
        "below_teacher_with_a_fourth_of_its_parameters": {
            "loss": below,
            "aim": TEACHER_LOSS,
            "holds": bool(below) and min(below.values()) <= TEACHER_LOSS,
        },
        "p_full_at_least_averaging_nonn": {
            "p_full": max(equal, default=0.0),
            "averaging": averaging["p_full"],
            "holds": max(equal, default=0.0) >= averaging["p_full"],
        },
    }


def judge_latency(part: dict[str, Any]) -> dict[str, Any]:
    """Whether a RoCoIn is faster than every baseline at every heterogeneity."""
    aims = {}
    for field in ("response_s", "with_outages_s"):
        faster = list_faster(part, field)
        aims[f"{field}_below_all_baselines"] = {
            "at": faster,
            "holds": all(len(faster[figures]) == len(part[figures]) for figures in part),
        }
    return aims
