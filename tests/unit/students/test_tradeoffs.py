"""The Pareto front against all groupings."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.core.device import DeviceProfile
from ddnn.errors import InfeasiblePlanError
from ddnn.students import StudentType, format_tradeoffs, list_tradeoffs, plan
from ddnn.students.tradeoff import format_latency
from tests.unit.students.site_made import make_devices, make_students

SMALL = StudentType("small", 1e6, 1000, 8)


@pytest.mark.parametrize("n", [6, 12])
def test_no_row_beats_another(n: int) -> None:
    rng = np.random.default_rng(0)
    devices, students = make_devices(rng, n), make_students(rng, 24)
    rows = list_tradeoffs(devices, 24, students, 0.2)
    figures = [(row.latency_s, -row.p_full, row.student_bytes) for row in rows]
    assert figures == sorted(figures)
    for one in figures:
        assert not any(
            all(a <= b for a, b in zip(other, one, strict=True)) and other != one
            for other in figures
        )
    assert rows[0].latency_s == plan(devices, np.ones((24, 24)), students, 0.2).guaranteed_latency_s


def test_more_redundancy_costs_time() -> None:
    """Four alike devices and 8 filters of 1 s each: alone 2 filters each, in pairs 4, all 8."""
    devices = [
        DeviceProfile(name, 1e6, uplink_bits_per_s=32, outage_probability=0.5) for name in "abcd"
    ]
    rows = list_tradeoffs(devices, 8, [SMALL], 1)
    assert [(row.latency_s, row.p_full, row.student_bytes) for row in rows] == [
        (3, 0.5**4, 4000),
        (4, 0.5 * 0.5 * 0.75, 3000),
        (5, 0.75**2, 2000),
        (9, 1 - 0.5**4, 1000),
    ]
    assert [row.sizes for row in rows] == [(2, 2, 2, 2), (3, 3, 2), (4, 4), (8,)]
    lines = format_tradeoffs(rows)
    assert len(lines) == 5
    assert " ".join(lines[3].split()) == (
        "5.000 s 0.5625 2 kB small x2, 4 filters | small x2, 4 filters"
    )


def test_short_latencies_are_shown_in_milliseconds() -> None:
    assert [format_latency(value) for value in (9.0, 0.25, 0.0125, 3.1e-5)] == [
        "9.000 s",
        "0.250 s",
        "12.5 ms",
        "0.031 ms",
    ]


def test_no_plan_no_rows() -> None:
    with pytest.raises(InfeasiblePlanError):
        list_tradeoffs([DeviceProfile("a", 1e6)], 9, [SMALL], 1)
