"""Ids, and the sample ids that every device computes from its own clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ddnn.core.ids import is_id, require_id, tick_of
from ddnn.errors import ConfigError

WALL_2026_S = 1.78e9
PERIODS = [0.001, 0.005, 0.01, 1 / 30, 0.04, 0.1, 0.2, 1 / 3, 0.7, 1.0, 2.5, 60.0]


@pytest.mark.parametrize("text", ["cam1", "a", "-", "0", "a" * 64, "edge-2"])
def test_ids(text: str) -> None:
    assert is_id(text)
    assert require_id(text, "node") == text


@pytest.mark.parametrize(
    "text", ["", "Cam", "cam_1", "a b", "a/b", "+", "#", "a" * 65, "a\n", "é", "٣"]
)
def test_other_texts(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(ConfigError, match="node"):
        require_id(text, "node")


@given(
    period_s=st.sampled_from(PERIODS) | st.floats(1e-3, 100),
    wall_s=st.floats(WALL_2026_S - 1e8, WALL_2026_S + 1e9),
)
@example(period_s=0.005, wall_s=1783962001.235)
def test_the_instant_of_a_tick_belongs_to_it(period_s: float, wall_s: float) -> None:
    tick = math.floor(wall_s / period_s)
    assert tick_of(tick * period_s, period_s) == tick


@given(
    period_s=st.sampled_from(PERIODS) | st.floats(5e-3, 100),
    wall_s=st.floats(WALL_2026_S - 1e8, WALL_2026_S + 3e8),
)
def test_clocks_a_nanosecond_apart_agree_at_a_boundary(period_s: float, wall_s: float) -> None:
    tick = math.floor(wall_s / period_s)
    boundary_s = tick * period_s
    earlier_s = min(boundary_s - 1e-9, math.nextafter(boundary_s, 0))
    assert tick_of(earlier_s, period_s) == tick_of(boundary_s + 1e-9, period_s) == tick


@given(period_s=st.sampled_from(PERIODS), offset=st.floats(0.02, 0.98))
def test_within_a_period_the_tick_does_not_change(period_s: float, offset: float) -> None:
    tick = math.floor(WALL_2026_S / period_s)
    assert tick_of((tick + offset) * period_s, period_s) == tick


def test_ticks_follow_one_another() -> None:
    first = tick_of(WALL_2026_S, 0.005)
    ticks = [tick_of((first + n) * 0.005, 0.005) for n in range(20_000)]
    assert ticks == list(range(first, first + 20_000))
