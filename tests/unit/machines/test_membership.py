"""Who is there: births, Wills, silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.machines.membership import MISSES_UNTIL_SUSPECT, PROBE_S, AnyOf, Membership
from ddnn.protocol.messages import Status


def status(state: Any, session: int) -> Status:
    return Status("device", session, state)


@pytest.fixture
def membership() -> Membership:
    membership = Membership(["cam1", "cam2"])
    assert membership.take_status("cam1", status("online", 1))
    assert membership.take_status("cam2", status("online", 5))
    assert membership.live == {"cam1", "cam2"}
    return membership


def test_nobody_is_there_at_first() -> None:
    assert Membership(["cam1"]).live == frozenset()


@pytest.mark.parametrize("state", ["lost", "stopped"])
def test_a_will_or_a_stop_takes_its_node_away(membership: Membership, state: str) -> None:
    assert membership.take_status("cam1", status(state, 1))
    assert membership.live == {"cam2"}
    assert not membership.take_status("cam1", status(state, 1))  # nothing changes by a repetition


@pytest.mark.parametrize("state", ["lost", "stopped"])
def test_a_late_will_of_an_old_session_kills_nobody(membership: Membership, state: str) -> None:
    membership.take_status("cam1", status("online", 2))  # back before the broker noticed
    assert not membership.take_status("cam1", status(state, 1))
    assert membership.live == {"cam1", "cam2"}
    assert membership.take_status("cam1", status(state, 2))
    assert membership.live == {"cam2"}


def test_a_will_seen_first_of_all_kills_only_its_session() -> None:
    membership = Membership(["cam1"])
    assert not membership.take_status("cam1", status("lost", 1))
    assert membership.take_status("cam1", status("online", 2))
    assert not membership.take_status("cam1", status("lost", 1))
    assert membership.live == {"cam1"}


def test_a_node_that_comes_back_is_there(membership: Membership) -> None:
    membership.take_status("cam1", status("lost", 1))
    assert membership.take_status("cam1", status("online", 2))
    assert membership.live == {"cam1", "cam2"}


def test_strangers_are_nobody(membership: Membership) -> None:
    assert not membership.take_status("cam9", status("online", 1))
    membership.note_report("cam9")
    assert membership.live == {"cam1", "cam2"}


def test_a_flood_of_strangers_takes_no_room(membership: Membership) -> None:
    for n in range(1000):
        membership.take_status(f"x{n}", status("online", n))
        membership.note_report(f"x{n}")
    assert len(membership._session) == len(membership._online) == 2


def test_suspected_after_two_misses_in_a_row(membership: Membership) -> None:
    assert MISSES_UNTIL_SUSPECT == 2
    membership.note_misses(["cam1"], 1.0)
    assert membership.live == {"cam1", "cam2"}
    membership.note_misses(["cam1"], 1.1)
    assert membership.live == {"cam2"}


def test_a_report_between_two_misses_clears_the_first(membership: Membership) -> None:
    membership.note_misses(["cam1"], 1.0)
    membership.note_report("cam1")
    membership.note_misses(["cam1"], 1.2)
    assert membership.live == {"cam1", "cam2"}


def test_who_reports_is_trusted_again(membership: Membership) -> None:
    for _ in range(5):
        membership.note_misses(["cam1"], 1.0)
    membership.note_report("cam1")
    assert membership.live == {"cam1", "cam2"}
    membership.note_misses(["cam1"], 2.0)
    assert "cam1" in membership.live  # it has two misses again


def test_a_birth_clears_suspicion(membership: Membership) -> None:
    membership.note_misses(["cam1"], 1.0)
    membership.note_misses(["cam1"], 1.1)
    assert not membership.take_status("cam1", status("online", 1))  # it is repeated
    assert membership.live == {"cam2"}
    assert membership.take_status("cam1", status("online", 2))
    assert membership.live == {"cam1", "cam2"}


def test_who_reports_is_there_whatever_was_said_of_it(membership: Membership) -> None:
    membership.take_status("cam1", status("lost", 1))
    membership.note_report("cam1")
    assert membership.live == {"cam1", "cam2"}


def test_a_suspect_is_asked_now_and_then_and_not_waited_for(membership: Membership) -> None:
    assert not membership.probe("cam1", 0.0)  # no suspect
    membership.note_misses(["cam1"], 1.0)
    membership.note_misses(["cam1"], 1.0)
    asked = [n / 10 for n in range(10, 45) if membership.probe("cam1", n / 10)]
    assert asked == pytest.approx([1 + PROBE_S, 1 + 2 * PROBE_S, 1 + 3 * PROBE_S])
    assert membership.live == {"cam2"}
    membership.note_report("cam1")
    assert not membership.probe("cam1", 99.0)


def test_further_misses_do_not_put_the_question_off(membership: Membership) -> None:
    for n in range(30):
        membership.note_misses(["cam1"], 1 + n * 0.1)
    assert membership.probe("cam1", 1.1 + PROBE_S)


def test_who_is_gone_is_not_asked(membership: Membership) -> None:
    membership.note_misses(["cam1"], 1.0)
    membership.note_misses(["cam1"], 1.0)
    membership.take_status("cam1", status("lost", 1))
    assert not membership.probe("cam1", 50.0)


_EVENTS = st.one_of(
    st.tuples(st.sampled_from(["online", "stopped", "lost"]), st.integers(1, 3)),
    st.tuples(st.just("reported"), st.just(0)),
    st.tuples(st.just("missed"), st.just(0)),
)


@given(st.lists(_EVENTS, max_size=30))
def test_as_by_hand(events: list[tuple[str, int]]) -> None:
    membership = Membership(["cam1"])
    session, online, misses = None, False, 0
    for n, (what, number) in enumerate(events):
        if what == "reported":
            membership.note_report("cam1")
            online, misses = True, 0
        elif what == "missed":
            membership.note_misses(["cam1"], float(n))
            misses += 1
        else:
            before = membership.live
            assert membership.take_status("cam1", status(what, number)) == (
                membership.live != before
            )
            if what == "online":
                if not online or session != number:
                    misses = 0
                session, online = number, True
            elif session in (None, number):
                session, online = number, False
        assert membership.live == ({"cam1"} if online and misses < 2 else set())


# ------------------------------------------------------------------ any of several


def test_a_repeated_birth_of_a_standby_is_none() -> None:
    clouds = AnyOf()
    births = [clouds.take_status("cloud", status("online", session)) for session in (1, 1, 2, 2, 1)]
    assert births == [True, False, True, False, True]


def test_of_several_standbys_one_is_enough() -> None:
    clouds = AnyOf()
    assert not clouds
    assert clouds.take_status("cloud-1", Status("cloud", 1, "online"))
    assert clouds.take_status("cloud-2", Status("cloud", 2, "online"))
    assert not clouds.take_status("cloud-1", Status("cloud", 1, "lost"))
    assert clouds
    assert not clouds.take_status("cloud-2", Status("cloud", 1, "lost"))  # of an old session
    assert clouds
    assert not clouds.take_status("cloud-2", Status("cloud", 2, "stopped"))
    assert not clouds
    clouds.take_status("cloud-1", Status("cloud", 3, "online"))
    clouds.clear()
    assert not clouds
