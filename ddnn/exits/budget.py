"""Thresholds that keep a budget, chosen without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.exits.hierarchy import Exit
from ddnn.exits.manifest import Manifest, SweepRow
from ddnn.exits.measure import Scores, compute_total_bytes, sweep_thresholds

Unit = Literal["bytes", "ms", "cloud"]
UNITS: tuple[Unit, ...] = ("bytes", "ms", "cloud")


class Budget(msgspec.Struct, frozen=True):
    """The most that a sample may cost on average.

    bytes: per device, over all hops, as in `compute_total_bytes`; ms: latency; cloud: the share of
    samples that the cloud answers
    """

    unit: Unit
    most: float


def parse_budget(text: str) -> Budget:
    """The budget of "bytes=40", "ms=20" or "cloud=0.1"; ConfigError."""
    unit, _, value = text.partition("=")
    try:
        most = float(value)
    except ValueError:
        most = math.nan
    if unit not in UNITS or not 0 <= most < math.inf or (unit == "cloud" and most > 1):
        raise ConfigError(
            f"--budget {text!r}: expected bytes=NUMBER, ms=NUMBER or cloud=SHARE from 0 to 1, such "
            "as bytes=40"
        )
    return Budget(unit, most)


def compute_cost(
    manifest: Manifest, row: SweepRow, unit: Unit, latency_ms: Mapping[str, float]
) -> float:
    """What the thresholds of a row cost on average, in a unit of budgets."""
    if unit == "bytes":
        return compute_total_bytes(manifest, row)
    if unit == "cloud":
        return row.exit_share.get("cloud", 0.0)
    return sum(share * latency_ms[tier] for tier, share in row.exit_share.items() if share)


def choose_reference(manifest: Manifest) -> Exit:
    """The exit that was the most accurate on validation data; the deepest where none was
    measured."""
    measured = manifest.accuracy.get(str(manifest.hierarchy.everyone), {})
    exits = manifest.hierarchy.exits
    return max(reversed(exits), key=lambda tier: measured.get(tier, 0.0))


def choose_within_budgets(
    manifest: Manifest,
    exits: Mapping[Exit, Scores],
    budgets: Sequence[Budget],
    latency_ms: Mapping[str, float],
) -> SweepRow:
    """Of the thresholds that keep all budgets on these samples, those whose answers agree most
    often with the reference exit, and of equal ones the cheapest. `accuracy` of the row is that
    agreement.

    exits: scores [samples, classes], all members present; latency_ms: by exit, for budgets in ms

    Raises ConfigError where the latency of an exit is needed and unknown, InfeasiblePlanError where
    no thresholds keep the budgets.
    """
    lacking = [tier for tier in manifest.hierarchy.exits if tier not in latency_ms]
    if lacking and any(budget.unit == "ms" for budget in budgets):
        raise ConfigError(
            f"a budget in ms needs the latency of the exits {', '.join(lacking)}; give "
            f"--latency {lacking[0]}=MS, such as the page of the site shows it"
        )
    answers = exits[choose_reference(manifest)].argmax(-1).astype(np.int32)
    rows = sweep_thresholds(manifest, exits, answers, manifest.score_format)

    def find_costs(row: SweepRow) -> list[float]:
        return [compute_cost(manifest, row, budget.unit, latency_ms) for budget in budgets]

    within = [
        row
        for row in rows
        if all(c <= b.most + 1e-9 for c, b in zip(find_costs(row), budgets, strict=True))
    ]
    if not within:
        least = ", ".join(
            f"{budget.unit}={min(find_costs(row)[i] for row in rows):.4g}"
            for i, budget in enumerate(budgets)
        )
        raise InfeasiblePlanError(
            f"no thresholds keep the budgets; the least that is possible is {least}, each by "
            "itself: allow more"
        )
    return min(within, key=lambda row: (-row.accuracy, compute_total_bytes(manifest, row)))
