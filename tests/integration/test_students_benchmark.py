"""The benchmark of the students at its smallest scale, on images of noise."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.report import flatten
from benchmarks.students.__main__ import PARTS, main, measure
from benchmarks.students.accuracy import join_live, list_failed_sets, measure_failures
from benchmarks.students.latency import (
    DEADLINE_FACTOR,
    FIGURES,
    FULL,
    answer,
    draw_devices,
    expect_latency,
    rate_methods,
    wait_for_all,
)
from benchmarks.students.methods import METHODS, ROCOIN, Method, list_equal_groups
from benchmarks.students.scales import DEVICES, SCALES, SMALL, TINY
from ddnn.data import Dataset, Split
from ddnn.students import StudentType

SEED = 0
TYPES = (StudentType("small", 6.5e6, 1000, 16), StudentType("large", 13.6e6, 2000, 32))
FILTERS = 64


def make_split(name: str, samples: int) -> Split:
    generator = np.random.default_rng(len(name))
    images = generator.integers(1, 256, (samples, 1, 32, 32, 3), np.uint8)
    labels = (np.arange(samples) % 10).astype(np.int32)
    return Split(name, images, labels, labels[:, None], np.full(samples, -1, np.int32))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def run(work: Path) -> dict[str, Any]:
    splits = [make_split(name, 48) for name in ("train", "validation", "test")]
    return measure(TINY, SEED, list(PARTS), Dataset("noise", tuple("abcdefghij"), *splits), work)


@pytest.fixture(scope="module")
def report(work: Path) -> dict[str, Any]:
    return run(work)


@pytest.fixture(scope="module")
def methods() -> dict[str, Method]:
    devices = draw_devices(FIGURES["paper"], FULL, np.random.default_rng(SEED))
    graph = np.random.default_rng(1).random((FILTERS, FILTERS))
    return {name: make(devices, graph + graph.T, TYPES, SEED) for name, make in METHODS.items()}


def test_all_sets_of_failed_devices_are_measured(report: dict[str, Any]) -> None:
    assert set(report["accuracy"]["methods"]) == set(METHODS) - set(TINY.untrained)
    for row in report["accuracy"]["methods"].values():
        for version in (row["plain"], row["filled"]):
            for k in range(5):
                assert version[str(k)]["sets"] == comb(DEVICES, k)
                assert 0 <= version[str(k)]["least"] <= version[str(k)]["mean"] <= 100


def test_a_live_member_of_each_group_gives_the_answers_without_failures(
    report: dict[str, Any],
) -> None:
    rows = report["accuracy"]["methods"]
    for name, k in (("rocoin-4x2", 1), ("rocoin-2x4", 3)):
        for version in ("plain", "filled"):
            row = rows[name][version]
            assert row[str(k)]["least"] == row[str(k)]["mean"] == row["0"]["mean"]
        assert rows[name]["p_full_after"][str(k)] == 1
    assert report["aims"]["single_failure"]["holds"]


def test_the_report_is_finite_json(report: dict[str, Any]) -> None:
    read = json.loads(json.dumps(report, allow_nan=False))
    latencies = flatten(read["latency"])
    assert len(latencies) == len(FIGURES) * len(TINY.heterogeneities) * len(METHODS) * 2
    assert all(seconds > 0 for seconds in latencies.values())
    assert read["holds"] == all(aim["holds"] for aim in read["aims"].values())
    assert read["budget"]["seconds"] > 0


def test_parameters_are_counted_by_device(report: dict[str, Any]) -> None:
    rows = report["accuracy"]["methods"]
    for row in rows.values():
        assert 0 < row["mean_parameters"] <= row["parameters_per_device"]
        ratio = row["teacher_over_device"] * row["parameters_per_device"]
        assert ratio == pytest.approx(report["accuracy"]["teacher"]["parameters"])
    assert (
        rows["averaging-nonn"]["mean_parameters"] == rows["averaging-nonn"]["parameters_per_device"]
    )


def test_a_second_run_trains_nothing_again(report: dict[str, Any], work: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in work.rglob("*.np[yz]")}
    again = run(work)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.np[yz]")} == files
    for name, row in report["accuracy"]["methods"].items():
        for field in ("plain", "filled", "fill", "groups"):
            assert again["accuracy"]["methods"][name][field] == row[field]


# ----------------------------------------------------------------------- methods


def test_groups_and_parts(methods: dict[str, Method]) -> None:
    shapes = {
        name: sorted(len(group.members) for group in method.plan.groups)
        for name, method in methods.items()
    }
    assert shapes["rocoin-4x2"] == shapes["averaging-nonn"] == [2] * 4
    assert shapes["rocoin-2x4"] == [4, 4]
    assert shapes["nonn"] == shapes["heterogeneous"] == [1] * 8
    for method in methods.values():
        filters = sorted(f for group in method.plan.groups for f in group.filters)
        assert filters == list(range(FILTERS))
        assert frozenset.union(*method.holders) == {d.name for d in method.plan.devices}
    assert len(methods["rocoin-4x2"].students) == 4
    assert len(methods["averaging-nonn"].students) == 8
    assert {len(filters) for _, filters in methods["nonn"].students} == {FILTERS // 8}


def test_equal_groups_are_all_of_them() -> None:
    assert len(set(list_equal_groups(tuple(range(8)), 2))) == 105
    assert len(set(list_equal_groups(tuple(range(8)), 4))) == 35


def test_the_own_plan_is_no_slower_than_given_groups(methods: dict[str, Method]) -> None:
    latencies = {name: methods[name].plan.expected_latency_s for name in ROCOIN}
    assert min(latencies.values()) == latencies["rocoin-planned"]


def test_live_students_of_a_part_are_averaged(methods: dict[str, Method]) -> None:
    generator = np.random.default_rng(0)

    class Version:
        values = np.full(FILTERS, 7, np.float32)

    method = methods["averaging-nonn"]
    means = tuple(
        generator.random((3, 1, 1, len(filters))).astype(np.float32)
        for _, filters in method.students
    )
    first = list(method.plan.groups[0].filters)
    everything = (True,) * 8
    for live, expected in (
        (everything, (means[0] + means[1]) / 2),
        ((False, *everything[1:]), means[1]),
        ((False, False, *everything[2:]), np.full_like(means[0], 7)),
    ):
        joined = join_live(method, means, Version(), live)  # type: ignore[arg-type]
        np.testing.assert_allclose(joined[..., first], expected, rtol=1e-6)


def test_failed_sets_decide_which_networks_answer(methods: dict[str, Method]) -> None:
    """A classifier that counts the filters that are not 0 makes the accuracy a count of parts."""

    class Version:
        values = np.zeros(FILTERS, np.float32)

        class unified:  # noqa: N801
            @staticmethod
            def classifier(z, training):
                return np.eye(FILTERS + 1)[(z[:, 0, 0] != 0).sum(-1)]

    for method in methods.values():
        means = tuple(np.ones((1, 1, 1, len(filters))) for _, filters in method.students)
        table = measure_failures(method, means, Version(), np.array([FILTERS]))  # type: ignore[arg-type]
        assert set(table) == set(list_failed_sets(tuple(d.name for d in method.plan.devices)))
        for failed, accuracy in table.items():
            whole = all(set(group.members) - failed for group in method.plan.groups)
            assert accuracy == (100 if whole else 0)


# ----------------------------------------------------------------------- latency


@pytest.mark.parametrize("figures", FIGURES.values(), ids=FIGURES)
@pytest.mark.parametrize("heterogeneity", [1, 3, FULL])
def test_devices_differ_by_the_heterogeneity(figures: Any, heterogeneity: float) -> None:
    devices = draw_devices(figures, heterogeneity, np.random.default_rng(0))
    speeds = [device.flops_per_s for device in devices]
    assert max(speeds) / min(speeds) == pytest.approx(heterogeneity)
    if heterogeneity == FULL:
        assert (min(speeds), max(speeds)) == pytest.approx(figures.flops_per_s)
        links = [device.uplink_bits_per_s for device in devices]
        assert (min(links), max(links)) == pytest.approx(figures.bits_per_s)


def test_what_a_silent_device_costs(methods: dict[str, Method]) -> None:
    deadline_s = DEADLINE_FACTOR * max(map(wait_for_all, methods.values()))
    failed = frozenset([methods["nonn"].plan.devices[0].name])
    assert answer(methods["nonn"], failed, deadline_s) == deadline_s
    redundant = methods["rocoin-4x2"]
    assert answer(redundant, frozenset(), deadline_s) <= answer(redundant, failed, deadline_s)
    assert answer(redundant, failed, deadline_s) <= wait_for_all(redundant) < deadline_s
    none_failed = 0.9**DEVICES
    expected = none_failed * wait_for_all(methods["nonn"]) + (1 - none_failed) * deadline_s
    assert expect_latency(methods["nonn"], deadline_s) == pytest.approx(expected)
    rates = rate_methods(methods)
    assert all(rate["with_outages_s"] > rate["response_s"] for rate in rates.values())


# ------------------------------------------------------------------------ scales


def test_the_small_scale_is_sized_for_two_hours() -> None:
    small, large = SMALL.students
    students = {
        "rocoin-4x2": (small,) * 4,
        "rocoin-2x4": (large,) * 2,
        "rocoin-planned": (small,) * 4,
        "nonn": (small,) * 8,
        "averaging-nonn": (small,) * 8,
        "heterogeneous": (small,) * 8,
    }
    total_s = SMALL.estimate_teacher_s() + sum(map(SMALL.estimate_students_s, students.values()))
    assert 1.5 * 3600 < total_s < 2.5 * 3600
    assert SCALES["paper"].estimate_teacher_s() is None


def test_a_missing_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["students", "--scale", "tiny", "--data", str(tmp_path)])
    monkeypatch.setattr("benchmarks.students.__main__.interrupt_on_sigterm", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "cifar10_train_jpeg.npz" in capsys.readouterr().err
