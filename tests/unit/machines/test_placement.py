"""Spares for the pieces of planned workers that are not at work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ddnn.machines.placement import find_stand_ins

A, B, C = (0,), (1, 2), (3,)


def test_a_spare_takes_all_pieces_of_one_worker() -> None:
    assert find_stand_ins([B, A], ["x"], [], {}) == {"x": B}


def test_as_many_as_there_are() -> None:
    assert find_stand_ins([A, B, C], ["x", "y"], [], {}) == {"x": A, "y": B}
    assert find_stand_ins([A], ["x", "y"], [], {}) == {"x": A}
    assert find_stand_ins([], ["x", "y"], [], {}) == {}
    assert find_stand_ins([A], [], [], {}) == {}


def test_what_is_loaded_stays_where_it_is() -> None:
    assert find_stand_ins([A, B, C], ["x", "y"], [], {"y": A, "x": C}) == {"x": C, "y": A}


def test_what_is_not_needed_any_more_is_given_back() -> None:
    assert find_stand_ins([B], ["x"], [], {"x": A}) == {"x": B}
    assert find_stand_ins([], ["x"], [], {"x": A}) == {}


def test_who_is_in_doubt_comes_last() -> None:
    """Also where it has loaded already what somebody better could have."""
    assert find_stand_ins([A], ["y"], ["x"], {"x": A}) == {"y": A}
    assert find_stand_ins([A, B], ["y"], ["x"], {"x": B}) == {"y": A, "x": B}
    assert find_stand_ins([A], [], ["x"], {}) == {"x": A}


def test_a_worker_without_pieces_leaves_no_gap() -> None:
    assert find_stand_ins([(), A], ["x"], [], {"x": ()}) == {"x": A}


PIECES = st.lists(st.integers(0, 9).map(lambda n: (n,)), max_size=6, unique=True)
NAMES = st.lists(st.sampled_from("pqrstuvw"), max_size=6, unique=True)


@given(
    PIECES,
    NAMES,
    st.integers(0, 6),
    st.dictionaries(st.sampled_from("pqrstuvw"), st.integers(0, 9).map(lambda n: (n,))),
)
def test_nothing_twice_nothing_left(vacant, spares, trusted, before) -> None:
    given = find_stand_ins(vacant, spares[:trusted], spares[trusted:], before)
    assert len(set(given.values())) == len(given) == min(len(vacant), len(spares))
    assert set(given) <= set(spares)
    assert set(given.values()) <= set(vacant)
    assert find_stand_ins(vacant, spares[:trusted], spares[trusted:], given) == given  # at rest
