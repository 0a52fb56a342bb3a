"""Which ticks are taken: the definition against counting one by one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.core.pace import ALL, EVERY_TICK, KEEP, Pace, PaceHistory
from ddnn.core.site_time import EPOCH_TICKS

SHARES = st.integers(1, ALL)
SAMPLES = st.integers(0, 5000)


@pytest.mark.parametrize("every", [1, 2, 4, 8, 256])
def test_a_share_of_one_in_a_power_of_two_is_every_such_tick(every: int) -> None:
    pace = Pace(ALL // every, 0)
    assert [t for t in range(2000) if pace.is_admitted(t)] == list(range(0, 2000, every))


@given(SHARES, SAMPLES)
def test_of_1024_ticks_in_a_row_the_share_is_taken_evenly(share: int, first: int) -> None:
    taken = [t for t in range(first, first + ALL) if Pace(share, 0).is_admitted(t)]
    assert len(taken) == share
    gaps = {b - a for a, b in pairwise(taken)}
    assert gaps <= {ALL // share, -(-ALL // share)}


@given(SHARES, SAMPLES)
def test_all_epochs_take_the_same_ticks(share: int, tick: int) -> None:
    pace = Pace(share, 0)
    assert pace.is_admitted(3 * EPOCH_TICKS + tick) == pace.is_admitted(tick)


HISTORIES = st.lists(st.builds(Pace, share=SHARES, since=SAMPLES), max_size=6)


def make_history(paces: list[Pace]) -> PaceHistory:
    history = PaceHistory()
    for pace in paces:
        history = history.add(pace)
    return history


@given(HISTORIES, SAMPLES)
def test_next_last_and_shed_are_what_counting_gives(paces: list[Pace], sample: int) -> None:
    history = make_history(paces)
    following = range(sample, sample + 3 * ALL)
    assert history.find_next(sample) == next(s for s in following if history.is_admitted(s))
    before = range(sample, -2 * ALL, -1)
    assert history.find_last(sample) == next(s for s in before if history.is_admitted(s))
    end = sample + 700
    shed = sum(not history.is_admitted(s) for s in range(sample, end))
    assert history.count_shed(sample, end) == shed


@given(HISTORIES, SAMPLES, st.integers(0, 50))
def test_a_sample_is_expected_however_late_cameras_followed(
    paces: list[Pace], sample: int, delay: int
) -> None:
    history = make_history(paces)
    followed = {history.find_pace(at) for at in range(sample - delay, sample + 1)}
    assert history.is_expected(sample, delay) == all(p.is_admitted(sample) for p in followed)


@given(HISTORIES)
def test_the_last_command_is_in_force_from_its_sample_on(paces: list[Pace]) -> None:
    """Whatever was commanded before, and for which samples."""
    history = make_history(paces)
    for sample in range(0, 6000, 97):
        later = [pace for pace in paces if pace.since <= sample]
        assert history.find_pace(sample) == (later[-1] if later else EVERY_TICK)


def test_a_history_is_bounded() -> None:
    history = make_history([Pace(1 + n % ALL, 10 * n) for n in range(100)])
    assert len(history.paces) == KEEP
    assert history.newest == Pace(100, 990)
