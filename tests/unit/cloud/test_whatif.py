"""Other thresholds on recorded samples follow the exit rule; unknown answers stay unknown."""

from __future__ import annotations

import numpy as np
import pytest

from cloud_app.store import Replay
from cloud_app.whatif import WhatIf, evaluate_thresholds, find_nearest_row
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.manifest import SweepRow
from ddnn.exits.measure import apply_exits
from tests.site_builder import SWEEP

EXITS = ("local", "edge", "cloud")
Passed = list[tuple[str, int, float]]


def make_replay(exit_trace: Passed, truth: int | None = 1, sample: int = 0) -> Replay:
    exit_, label, _ = exit_trace[-1]
    return Replay(sample, exit_, label, truth, exit_trace, 6, 100)


def evaluate(thresholds: dict[str, float], *replays: Replay) -> WhatIf:
    return evaluate_thresholds(EXITS, SWEEP, thresholds, replays)


def test_with_all_exits_recorded_the_result_equals_staged_inference() -> None:
    """The estimate equals `apply_exits` for any thresholds."""
    rng = np.random.default_rng(5)
    hierarchy = make_configuration("e", 6)
    scores = {tier: rng.normal(0, 2, (400, 3)).astype(np.float32) for tier in EXITS}
    truths = rng.integers(0, 3, 400)
    eta = {tier: normalized_entropy(softmax(scores[tier])) for tier in EXITS}
    replays = [
        make_replay(
            [(tier, int(scores[tier][n].argmax()), float(eta[tier][n])) for tier in EXITS],
            int(truths[n]),
        )
        for n in range(400)
    ]
    for local, edge in rng.uniform(0, 1, (20, 2)):
        thresholds = {"local": float(local), "edge": float(edge)}
        chosen, answers = apply_exits(hierarchy, scores, thresholds)
        got = evaluate_thresholds(hierarchy.exits, (), thresholds, replays)
        assert got.exit_share == {
            **{tier: np.mean(chosen == i) for i, tier in enumerate(EXITS)},
            "unknown": 0.0,
        }
        assert got.accuracy == np.mean(answers == truths)
        assert got.known == 400


def test_a_sample_whose_deeper_exit_did_not_run_is_unknown() -> None:
    answered_locally = make_replay([("local", 1, 0.2)])
    assert evaluate({"local": 0.3, "edge": 0.5}, answered_locally).exit_share["local"] == 1.0
    lower = evaluate({"local": 0.1, "edge": 0.5}, answered_locally)
    assert lower.exit_share == {"local": 0.0, "edge": 0.0, "cloud": 0.0, "unknown": 1.0}
    assert (lower.samples, lower.known) == (1, 0)
    assert (lower.accuracy, lower.interval) == (None, None)


def test_the_rule_is_strict_and_the_deepest_exit_always_answers() -> None:
    asked_all = make_replay([("local", 0, 0.3), ("edge", 1, 0.5), ("cloud", 2, 1.0)])
    assert evaluate({"local": 0.3, "edge": 0.5}, asked_all).exit_share["cloud"] == 1.0
    assert evaluate({"local": 0.3, "edge": 0.51}, asked_all).exit_share["edge"] == 1.0
    assert evaluate({"local": 0.31, "edge": 0.0}, asked_all).exit_share["local"] == 1.0


def test_accuracy_is_over_answers_and_truths_that_are_known() -> None:
    got = evaluate(
        {"local": 0.3, "edge": 0.5},
        make_replay([("local", 1, 0.1)]),
        make_replay([("local", 2, 0.1)]),
        make_replay([("local", 2, 0.1)], truth=None),
        make_replay([("local", 2, 0.1)], truth=-1),  # the view is blank
        make_replay([("local", 1, 0.9)]),
    )
    assert (got.samples, got.known, got.accuracy) == (5, 2, 0.5)
    assert got.exit_share["unknown"] == 0.2
    assert got.interval == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson, 1 of 2


def test_answers_of_single_devices_do_not_change() -> None:
    """The edge was away: its thresholds do not matter."""
    alone = Replay(1, "device", 2, 2, [], 1, 12)
    got = evaluate({"local": 0.0, "edge": 0.0}, alone)
    assert got.exit_share == {"device": 1.0, "local": 0, "edge": 0, "cloud": 0, "unknown": 0}
    assert (got.accuracy, got.bytes) == (1.0, 12.0)


def test_bytes_follow_the_share_that_sends_no_features() -> None:
    """They lie on the line of the sweep's rows: 12 B of scores, and 100 B of features."""
    replays = [make_replay([("local", 1, 0.1)])] * 3 + [make_replay([("local", 1, 0.9)])]
    assert evaluate({"local": 0.3, "edge": 0.5}, *replays).bytes == pytest.approx(12 + 0.25 * 100)
    assert evaluate_thresholds(EXITS, (), {"local": 0.3}, replays).bytes is None


def test_without_recorded_samples_nothing_is_measured() -> None:
    assert evaluate({"local": 0.3}) == WhatIf(0, {}, 0, None, None, None)


def test_the_nearest_row_of_the_sweep_is_found() -> None:
    assert find_nearest_row(SWEEP, {"local": 0.6, "edge": 0.5}) is SWEEP[1]
    assert find_nearest_row(SWEEP, {"local": 0.8, "edge": 0.5}) is SWEEP[2]
    assert find_nearest_row((), {"local": 0.8}) is None
    rows = [SweepRow({"local": x, "edge": y}, 0, {}, 0) for x in (0.0, 1.0) for y in (0.0, 1.0)]
    assert find_nearest_row(rows, {"local": 0.4, "edge": 0.6}) is rows[1]
