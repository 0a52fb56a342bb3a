"""The choice of thresholds and score format, and the front, equal exhaustive searches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.exits.cost import compute_communication_bytes
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.manifest import SweepRow, aggregate_scores
from ddnn.exits.measure import (
    Measurement,
    choose_format,
    choose_row,
    compute_accuracy,
    compute_total_bytes,
    find_front,
    list_inversions,
    list_score_formats,
)
from tests.unit.exits.exit_builders import make_manifest


def row(accuracy: float, cost: float) -> SweepRow:
    return SweepRow({"local": 0.5}, accuracy, {}, cost)


def get_bytes(row: SweepRow) -> float:
    return row.bytes_per_sample_per_device


def test_the_cheapest_row_within_the_margin_of_the_best_is_chosen() -> None:
    rows = [row(0.95, 100), row(0.94, 50), row(0.93, 20), row(0.90, 10)]
    for margin, expected in ((0.0, 0), (0.01, 1), (0.02, 2), (0.021, 2), (0.05, 3), (1, 3)):
        assert choose_row(rows, get_bytes, margin) is rows[expected]


def test_of_equally_cheap_rows_the_most_accurate_is_chosen() -> None:
    rows = [row(0.94, 50), row(0.96, 50 + 1e-9), row(0.95, 50)]
    assert choose_row(rows, get_bytes, 0.02) is rows[1]


ROWS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=20)


@given(ROWS, st.integers(0, 5))
def test_choose_row_equals_an_exhaustive_search(pairs, margin: int) -> None:
    rows = [row(a / 20, float(c)) for a, c in pairs]
    chosen = choose_row(rows, get_bytes, margin / 20)
    highest = max(a for a, _ in pairs)
    best = min((c, -a) for a, c in pairs if a >= highest - margin)
    assert (chosen.bytes_per_sample_per_device, -chosen.accuracy * 20) == pytest.approx(best)


@given(ROWS)
def test_the_front_is_all_rows_that_no_other_surpasses(pairs) -> None:
    front = find_front([row(a / 20, float(c)) for a, c in pairs], get_bytes)
    expected = {
        (a, c)
        for a, c in pairs
        if not any((x >= a and y < c) or (x > a and y <= c) for x, y in pairs)
    }
    assert [(round(r.accuracy * 20), int(get_bytes(r))) for r in front] == sorted(expected)


def test_staged_thresholds_may_surpass_the_deepest_exit() -> None:
    """Where exits err on different samples, the margin counts from the best row, not the cloud."""
    labels = np.arange(60, dtype=np.int32) % 3
    right = (np.eye(3, dtype=np.float32)[labels] * 9).astype(np.float32)
    local, cloud = right.copy(), right.copy()
    local[:20] = 0.01 * np.roll(right[:20], 1, axis=1)  # wrong and unsure
    cloud[20:30] = np.roll(right[20:30], 1, axis=1)  # wrong where the local exit is right and sure
    manifest = make_manifest("c", 3)
    _, rows, chosen = choose_format(manifest, make_measurement(local, cloud, labels), 0.0)
    assert compute_accuracy(cloud, labels) < 0.9
    assert (chosen.accuracy, max(r.accuracy for r in rows)) == (1.0, 1.0)
    assert chosen.exit_share == {"local": pytest.approx(2 / 3), "cloud": pytest.approx(1 / 3)}


def test_the_bytes_to_the_cloud_count_in_the_choice() -> None:
    manifest = make_manifest("e", 3)
    size = compute_communication_bytes(0, 0, 1, int(np.prod(manifest.edge_features)))
    near = SweepRow({}, 0.9, {"local": 0.5, "edge": 0.4, "cloud": 0.1}, 20.0)
    far = SweepRow({}, 0.9, {"local": 0.5, "edge": 0.1, "cloud": 0.4}, 20.0)
    for one, share in ((near, 0.1), (far, 0.4)):
        assert compute_total_bytes(manifest, one) == pytest.approx(20 + size * share / 3)
    assert choose_row([far, near], lambda r: compute_total_bytes(manifest, r), 0.0) is near


def test_a_deeper_exit_that_is_not_more_accurate_is_listed() -> None:
    hierarchy = make_configuration("e", 3)
    labels = np.arange(40, dtype=np.int32) % 3
    right = np.eye(3, dtype=np.float32)[labels]
    worse = right.copy()
    worse[:10] = np.roll(right[:10], 1, axis=1)
    exits = {"local": worse, "edge": right, "cloud": worse}
    assert list_inversions(hierarchy, exits, labels) == [("edge", "cloud", pytest.approx(0.25))]
    assert list_inversions(hierarchy, {**exits, "cloud": right}, labels) == [("edge", "cloud", 0)]


def make_measurement(scores: np.ndarray, cloud: np.ndarray, labels: np.ndarray) -> Measurement:
    """Make a measurement of three devices with the same scores, whose maximum is the same."""
    devices = np.repeat(scores[:, None], 3, axis=1)
    return Measurement(labels, devices, {7: {"local": scores, "cloud": cloud}})


def test_the_cheapest_format_within_the_margin_is_chosen() -> None:
    labels = np.arange(60, dtype=np.int32) % 3
    sure = (np.eye(3, dtype=np.float32)[labels] * 9).astype(np.float32)
    form, rows, chosen = choose_format(
        make_manifest("c", 3), make_measurement(sure, sure, labels), 0.0
    )
    assert form.type == "uint8"
    assert len(rows) == 51
    assert (chosen.accuracy, chosen.bytes_per_sample_per_device) == (1.0, 3.0)


def test_a_format_that_loses_too_much_accuracy_is_not_chosen() -> None:
    """Differences under a step of the 8-bit grid and above one of float16."""
    labels = np.arange(60, dtype=np.int32) % 3
    fine = (np.eye(3, dtype=np.float32)[labels] * 0.02).astype(np.float32)
    fine += np.linspace(-4, 4, 60, dtype=np.float32)[:, None]
    wrong = np.roll(np.eye(3, dtype=np.float32)[labels], 1, axis=1)
    cloud = wrong.copy()
    cloud[:57] = np.eye(3, dtype=np.float32)[labels[:57]]  # 95 %
    measured = make_measurement(fine, cloud, labels)
    manifest = make_manifest("c", 3, device_features=(8, 8, 8))  # dear: 64 bytes
    form, _, chosen = choose_format(manifest, measured, 0.0)
    assert form.type == "float16"
    heard = aggregate_scores(manifest, "local", [fine[0]] * 3)
    assert heard.argmax() == labels[0]
    assert chosen.accuracy >= 0.95


def test_the_candidates_are_cheapest_first_and_span_the_scores() -> None:
    devices = np.linspace(-5, 5, 3000, dtype=np.float32).reshape(100, 10, 3)
    formats = list_score_formats(devices)
    assert [form.type for form in formats] == ["uint8", "float16", "float32"]
    assert formats[0].low == pytest.approx(-5, abs=0.02)
    assert formats[0].high == pytest.approx(5, abs=0.02)
    same = list_score_formats(np.zeros((4, 2, 3), np.float32))[0]
    assert same.high > same.low  # a grid needs a width
