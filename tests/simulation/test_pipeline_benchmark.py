"""The benchmark of pipelines measures what it says, on a profile whose best cut is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.harness.svg import draw_lines
from benchmarks.pipeline.processes import MEASURED, MODEL, STATIC
from benchmarks.pipeline.recovery import Takeover, lose_one
from benchmarks.pipeline.simulated import SimulatedPipeline, read_profiles
from benchmarks.pipeline.speed import find_best_s
from ddnn.cli.pipeline import pipeline
from ddnn.errors import ConfigError
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.stage import LayerProfile

PROFILES = [LayerProfile(0.01, 0.02, 25_600, 25_600)] * 6
LAYER_S, RATE = 0.03, 125e6


def measure(capacities: list[float], settings: Settings) -> float:
    site = SimulatedPipeline(PROFILES, capacities, settings, RATE)
    return site.measure_batch_s(20, 80)


def test_equal_devices_take_the_time_of_a_stage() -> None:
    assert find_best_s(PROFILES, [1.0, 1.0], RATE) == pytest.approx(3 * LAYER_S)
    deep_s = measure([1.0, 1.0], Settings(100, deep=True))
    plain_s = measure([1.0, 1.0], Settings(100))
    assert deep_s == pytest.approx(3 * LAYER_S, rel=0.02)
    assert deep_s < plain_s < 1.2 * deep_s  # it waits for the links


def test_a_static_cut_waits_for_the_slow_device() -> None:
    static = Settings(100, equal_capacities=True, choose_order=False, repartition_at=(0, 0))
    assert measure([1.0, 4.0], static) == pytest.approx(4 * 3 * LAYER_S, rel=0.02)
    assert measure([1.0, 4.0], Settings(100)) < 5.3 * LAYER_S  # five layers and one


@pytest.mark.parametrize("takes_over", [False, True])
def test_a_takeover_leaves_the_other_stages_as_they_are(takes_over: bool) -> None:
    plan = Takeover().plan if takes_over else None
    site = SimulatedPipeline(
        PROFILES, [1.0, 1.0, 1.0], Settings(400, chain_every=10, global_every=50), RATE, plan
    )
    row = lose_one(site, "killed", restarts=False)
    ranges = [stop - start for start, stop in site.central.driver.arrangement.ranges]
    assert ranges == ([2, 4] if takes_over else [3, 3])
    expected = 2.0 if takes_over else 1.5
    assert row["batch_after_over_before"] == pytest.approx(expected, rel=0.1)
    assert row["total_s"] >= row["detect_s"] + row["plan_s"] + row["fetch_s"] + row["commit_s"]


def test_a_restart_computes_batches_again() -> None:
    site = SimulatedPipeline(
        PROFILES, [1.0, 1.0, 1.0], Settings(400, chain_every=10, global_every=50), RATE
    )
    row = lose_one(site, "killed", restarts=True)
    assert row["batches_again"] > 30
    assert row["rerun_s"] > 30 * LAYER_S


def test_a_broken_profile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"layers": [{"forward_s": 1}]}))
    with pytest.raises(ConfigError, match="pipeline_profile"):
        read_profiles(file)


def test_a_chart_names_its_lines_and_marks() -> None:
    svg = draw_lines({"a < b": [(0, 1), (10, 2)]}, "title", ("x", "y"), {"killed": 5})
    assert "a &lt; b" in svg
    assert "killed" in svg
    assert svg.count("<polyline") == 1


def test_the_demo_has_the_options_that_the_benchmark_gives_it() -> None:
    """Beside devices that are none, so that nothing is started."""
    words = [*MODEL, "--devices", "0", *MEASURED, *STATIC]
    done = CliRunner().invoke(pipeline, ["demo", *words])
    assert "--devices '0': expected 1 to 32 numbers" in done.output, done.output
