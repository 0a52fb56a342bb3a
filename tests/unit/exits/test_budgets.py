"""Thresholds by a budget equal an exhaustive search, and need no labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.exits.budget import (
    Budget,
    choose_reference,
    choose_within_budgets,
    compute_cost,
    parse_budget,
)
from ddnn.exits.measure import apply_exits, sweep_thresholds
from tests.unit.exits.exit_builders import make_manifest

LATENCY_MS = {"local": 2.0, "edge": 5.0, "cloud": 30.0}
MEASURED = {"7": {"local": 0.8, "edge": 0.9, "cloud": 0.95}}


def draw_exits(seed: int, samples: int = 30):
    generator = np.random.default_rng(seed)
    return {
        tier: generator.normal(0, 2, (samples, 3)).astype(np.float32)
        for tier in ("local", "edge", "cloud")
    }


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 50),
    unit=st.sampled_from(["bytes", "ms", "cloud"]),
    share=st.floats(0.05, 1),
)
def test_the_thresholds_that_agree_most_within_the_budget_are_chosen(seed, unit, share) -> None:
    manifest = make_manifest("e", 3, accuracy=MEASURED)
    exits = draw_exits(seed)
    answers = exits["cloud"].argmax(-1).astype(np.int32)
    rows = sweep_thresholds(manifest, exits, answers, manifest.score_format)
    costs = [compute_cost(manifest, row, unit, LATENCY_MS) for row in rows]
    most = min(costs) + share * (max(costs) - min(costs))
    chosen = choose_within_budgets(manifest, exits, [Budget(unit, most)], LATENCY_MS)
    assert compute_cost(manifest, chosen, unit, LATENCY_MS) <= most + 1e-6
    best = max(row.accuracy for row, cost in zip(rows, costs, strict=True) if cost <= most + 1e-9)
    assert chosen.accuracy == best
    _, labels = apply_exits(manifest.hierarchy, exits, chosen.thresholds)
    assert chosen.accuracy == np.mean(labels == answers)


def test_all_of_several_budgets_are_kept() -> None:
    manifest, exits = make_manifest("e", 3, accuracy=MEASURED), draw_exits(1)
    budgets = [Budget("cloud", 0.3), Budget("ms", 8.0)]
    row = choose_within_budgets(manifest, exits, budgets, LATENCY_MS)
    assert row.exit_share["cloud"] <= 0.3
    assert sum(LATENCY_MS[tier] * share for tier, share in row.exit_share.items()) <= 8.0


def test_what_cannot_be_kept_says_what_can() -> None:
    manifest, exits = make_manifest("e", 3), draw_exits(1)
    with pytest.raises(InfeasiblePlanError, match=r"least that is possible is ms=2\b"):
        choose_within_budgets(manifest, exits, [Budget("ms", 1.0)], LATENCY_MS)
    with pytest.raises(ConfigError, match="--latency edge=MS"):
        choose_within_budgets(manifest, exits, [Budget("ms", 9)], {"local": 1.0, "cloud": 9.0})


@pytest.mark.parametrize("accuracy", [{}, MEASURED, {"7": {"local": 0.9, "edge": 0.8}}])
def test_the_reference_is_the_exit_that_was_the_most_accurate(accuracy) -> None:
    expected = "local" if accuracy and "cloud" not in accuracy["7"] else "cloud"
    assert choose_reference(make_manifest("e", 3, accuracy=accuracy)) == expected


@pytest.mark.parametrize("text", ["", "40", "bytes=x", "cloud=1.1", "ms=-1", "watts=3", "ms=nan"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        parse_budget(text)
    assert parse_budget("bytes=40") == Budget("bytes", 40.0)
