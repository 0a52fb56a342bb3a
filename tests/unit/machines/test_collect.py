"""The collector: what becomes of parts and of jobs, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.core.quorum import Quorum
from ddnn.machines.collect import Collector, Complete, Expired, Outcome, Receipt

DUE_S = 1.0
ONE_EACH = {name: frozenset([name]) for name in "abc"}
REPLICAS = {"a": frozenset([0, 1]), "b": frozenset([0]), "c": frozenset([1])}


def require(count: int) -> Quorum:
    return lambda parts: len(parts) >= count


def is_never_enough(parts: Any) -> bool:
    return False


def open_job(
    expected: Any = ONE_EACH, quorum: Quorum | None = None, **options: Any
) -> Collector[int, str]:
    """A collector with job 7 open, by default for any two parts of three senders."""
    collector: Collector[int, str] = Collector()
    outcomes = collector.open(7, expected, quorum or require(2), 0.0, DUE_S, **options)
    assert outcomes == []
    return collector


def receive(
    collector: Collector[int, str], time_s: float, *senders: str
) -> list[Outcome[int, str]]:
    """Each sender sends its one part, which is taken."""
    outcomes: list[Outcome[int, str]] = []
    for sender in senders:
        receipt, more = collector.receive(7, sender, sender, sender.upper(), time_s)
        assert receipt is Receipt.TAKEN
        outcomes += more
    return outcomes


# ------------------------------------------------------------------ enough


def test_enough_parts_complete_the_job_at_once() -> None:
    collector = open_job()
    assert receive(collector, 0.1, "a") == []
    assert not collector.is_complete(7)
    (outcome,) = receive(collector, 0.25, "c")
    assert outcome == Complete(7, {"a": "A", "c": "C"}, {"a": "a", "c": "c"}, ("b",), 0.25)
    assert collector.is_complete(7)


def test_parts_after_enough_are_in_the_end_and_not_in_what_was_reported() -> None:
    collector = open_job()
    (complete,) = receive(collector, 0.1, "a", "b")
    (ended,) = receive(collector, 0.2, "c")
    assert ended == Expired(
        7, {"a": "A", "b": "B", "c": "C"}, {"a": "a", "b": "b", "c": "c"}, (), True
    )
    assert complete.parts == {"a": "A", "b": "B"}
    assert len(collector) == 0


def test_the_end_of_a_complete_job_that_is_due_names_the_missing() -> None:
    collector = open_job()
    receive(collector, 0.1, "a", "b")
    assert collector.end_due(DUE_S - 0.01) == []
    (ended,) = collector.end_due(DUE_S)
    assert isinstance(ended, Expired)
    assert (ended.completed, ended.missing) == (True, ("c",))


def test_the_last_sender_that_makes_it_enough_completes_and_ends() -> None:
    collector = open_job(quorum=require(3))
    complete, ended = receive(collector, 0.1, "a", "b", "c")
    assert isinstance(complete, Complete)
    assert isinstance(ended, Expired)
    assert ended.completed


def test_all_have_sent_and_it_is_not_enough() -> None:
    (ended,) = receive(open_job(quorum=is_never_enough), 0.1, "a", "b", "c")
    assert isinstance(ended, Expired)
    assert (ended.completed, ended.missing) == (False, ())


# --------------------------------------------------------- what became of a part


def test_a_replica_that_comes_second_is_repeated_and_discharges_its_sender() -> None:
    collector = open_job(REPLICAS)
    assert collector.receive(7, "a", 0, "first", 0.1) == (Receipt.TAKEN, [])
    assert collector.has_awaited(7, "b")
    assert collector.receive(7, "b", 0, "second", 0.2) == (Receipt.REPEATED, [])
    assert not collector.has_awaited(7, "b")
    assert collector.has_awaited(7, "a")  # one part of two
    _, (complete,) = collector.receive(7, "a", 1, "other", 0.3)
    assert complete.parts == {0: "first", 1: "other"}
    assert complete.senders == {0: "a", 1: "a"}
    assert complete.missing == ("c",)


def test_a_job_ends_with_the_repeated_part_of_the_last_sender() -> None:
    collector = open_job({"a": frozenset([0]), "b": frozenset([0])}, require(1))
    (_, (complete,)) = collector.receive(7, "a", 0, "x", 0.1)
    assert isinstance(complete, Complete)
    receipt, (ended,) = collector.receive(7, "b", 0, "y", 0.2)
    assert receipt is Receipt.REPEATED
    assert isinstance(ended, Expired)
    assert ended.parts == {0: "x"}


def test_the_same_part_of_the_same_sender_changes_nothing() -> None:
    collector = open_job()
    receive(collector, 0.1, "a")
    assert collector.receive(7, "a", "a", "again", 0.2) == (Receipt.REPEATED, [])
    (complete,) = receive(collector, 0.3, "b")
    assert complete.parts == {"a": "A", "b": "B"}


def test_a_part_for_a_closed_job_is_late_and_for_no_job_unknown() -> None:
    collector = open_job()
    assert collector.receive(8, "a", "a", "A", 0.1) == (Receipt.UNKNOWN, [])
    collector.end_due(DUE_S)
    assert collector.receive(7, "a", "a", "A", 1.1) == (Receipt.LATE, [])
    assert collector.opened_s(7) == 0.0
    assert collector.opened_s(8) is None


def test_a_job_that_closed_long_ago_is_unknown() -> None:
    collector: Collector[int, str] = Collector(remember=1)
    for key in (7, 8):
        collector.open(key, ONE_EACH, is_never_enough, 0.0, DUE_S)
    collector.end_due(DUE_S)
    assert collector.receive(7, "a", "a", "A", 2.0)[0] is Receipt.UNKNOWN
    assert collector.receive(8, "a", "a", "A", 2.0)[0] is Receipt.LATE


def test_a_part_of_a_sender_that_is_not_expected_counts() -> None:
    collector = open_job()
    assert not collector.is_expected(7, "x", "x")
    assert collector.is_expected(7, "a", "a")
    receive(collector, 0.1, "x")
    (complete,) = receive(collector, 0.2, "a")
    assert complete.missing == ("b", "c")


# ---------------------------------------------------------------- the time is over


def test_a_job_that_is_due_hands_over_its_parts_and_names_the_missing() -> None:
    collector = open_job(REPLICAS, is_never_enough)
    collector.receive(7, "a", 0, "x", 0.1)
    collector.receive(7, "c", 1, "y", 0.2)
    assert collector.next_due_s() == DUE_S
    assert collector.end_due(DUE_S - 0.001) == []
    (ended,) = collector.end_due(DUE_S)
    assert ended == Expired(7, {0: "x", 1: "y"}, {0: "a", 1: "c"}, ("a", "b"), False)
    assert collector.end_due(9.0) == []
    assert collector.next_due_s() is None


def test_all_are_waited_for_until_the_threshold() -> None:
    collector = open_job(wait_for_all_until_s=0.4)
    assert collector.next_due_s() == 0.4
    assert receive(collector, 0.1, "a", "b") == []
    (complete,) = collector.end_due(0.4)
    assert isinstance(complete, Complete)
    assert (complete.missing, complete.after_s) == (("c",), 0.4)
    assert collector.next_due_s() == DUE_S
    (ended,) = collector.end_due(DUE_S)
    assert isinstance(ended, Expired)
    assert ended.completed


def test_before_the_threshold_all_together_complete() -> None:
    collector = open_job(wait_for_all_until_s=0.4)
    complete, ended = receive(collector, 0.1, "a", "b", "c")
    assert isinstance(complete, Complete)
    assert complete.after_s == 0.1
    assert isinstance(ended, Expired)


def test_after_the_threshold_any_parts_that_are_enough_will_do() -> None:
    collector = open_job(wait_for_all_until_s=0.4)
    receive(collector, 0.1, "a")
    assert collector.end_due(0.4) == []
    (complete,) = receive(collector, 0.5, "b")
    assert isinstance(complete, Complete)


def test_a_threshold_beyond_the_time_is_the_time() -> None:
    collector = open_job(wait_for_all_until_s=5.0)
    receive(collector, 0.1, "a", "b")
    assert collector.next_due_s() == DUE_S
    complete, ended = collector.end_due(DUE_S)
    assert isinstance(complete, Complete)
    assert isinstance(ended, Expired)


# ------------------------------------------------------------- senders come and go


def test_a_job_that_cannot_complete_any_more_ends_at_once() -> None:
    collector = open_job()
    receive(collector, 0.1, "a")
    assert collector.list_awaited() == {"b", "c"}
    assert collector.withdraw(["b"], 0.2) == []
    (ended,) = collector.withdraw(["c"], 0.3)
    assert ended == Expired(7, {"a": "A"}, {"a": "a"}, ("b", "c"), False)


def test_a_job_that_waits_for_nobody_any_more_completes() -> None:
    collector = open_job(wait_for_all_until_s=0.4)
    receive(collector, 0.1, "a", "b")
    complete, ended = collector.withdraw(["c"], 0.2)
    assert isinstance(complete, Complete)
    assert complete.missing == ("c",)
    assert isinstance(ended, Expired)


def test_withdrawing_those_that_have_sent_changes_nothing() -> None:
    collector = open_job()
    receive(collector, 0.1, "a")
    assert collector.withdraw(["a", "x"], 0.2) == []
    (complete,) = receive(collector, 0.3, "b")
    assert isinstance(complete, Complete)


def test_removed_parts_do_not_count_and_their_sender_is_awaited_until_withdrawn() -> None:
    collector = open_job()
    receive(collector, 0.1, "a")
    collector.remove_parts(["a"])
    assert collector.has_awaited(7, "a")
    assert collector.withdraw(["a"], 0.2) == []
    assert receive(collector, 0.3, "b") == []
    complete, ended = receive(collector, 0.4, "c")
    assert complete.parts == {"b": "B", "c": "C"}
    assert isinstance(ended, Expired)


def test_a_removed_part_may_come_from_another_sender() -> None:
    collector = open_job(REPLICAS)
    collector.receive(7, "b", 0, "wrong", 0.1)
    collector.remove_parts(["b"])
    collector.withdraw(["b"], 0.1)
    assert collector.receive(7, "a", 0, "right", 0.2)[0] is Receipt.TAKEN
    _, (complete,) = collector.receive(7, "c", 1, "y", 0.3)
    assert complete.parts == {0: "right", 1: "y"}


def test_all_that_was_given_is_in_the_end_by_part_and_sender() -> None:
    collector = open_job(REPLICAS)
    collector.receive(7, "b", 0, "first", 0.1)
    collector.receive(7, "b", 0, "again", 0.1)  # by the same sender
    collector.receive(7, "a", 0, "second", 0.2)
    collector.receive(7, "a", 1, "x", 0.2)
    _, (ended,) = collector.receive(7, "c", 1, "y", 0.3)
    assert isinstance(ended, Expired)
    assert ended.by_sender == {0: {"b": "first", "a": "second"}, 1: {"a": "x", "c": "y"}}
    assert [list(given) for given in ended.by_sender.values()] == [["b", "a"], ["a", "c"]]


def test_a_replica_takes_the_place_of_a_removed_part() -> None:
    collector = open_job(REPLICAS)
    collector.receive(7, "b", 0, "wrong", 0.1)
    collector.receive(7, "a", 0, "right", 0.2)
    collector.remove_parts(["b"])
    collector.withdraw(["b"], 0.2)
    _, (complete,) = collector.receive(7, "c", 1, "y", 0.3)
    assert complete.parts == {0: "right", 1: "y"}
    assert complete.senders == {0: "a", 1: "c"}


def test_a_removed_replica_is_not_in_the_end() -> None:
    collector = open_job(REPLICAS)
    collector.receive(7, "b", 0, "right", 0.1)
    collector.receive(7, "a", 0, "wrong", 0.2)
    collector.remove_parts(["a"])
    collector.withdraw(["a"], 0.2)
    _, (_, ended) = collector.receive(7, "c", 1, "y", 0.3)
    assert isinstance(ended, Expired)
    assert ended.by_sender == {0: {"b": "right"}, 1: {"c": "y"}}


def test_a_quorum_that_depends_on_more_than_the_parts_is_asked_again() -> None:
    live = {"a", "b", "c"}
    collector = open_job(quorum=live.issubset)
    receive(collector, 0.1, "a")
    assert collector.review([7, 8], 0.2) == []
    live.discard("b")
    assert collector.review([7], 0.2) == []
    live.discard("c")
    (complete,) = collector.review(collector.open_keys(), 0.3)
    assert isinstance(complete, Complete)
    assert complete.missing == ("b", "c")
    assert collector.review([7], 0.4) == []  # it is complete already


def test_the_owner_ends_a_job() -> None:
    collector = open_job()
    receive(collector, 0.1, "a", "b")
    collector.end(7)
    collector.end(7)
    assert (len(collector), collector.open_keys(), collector.next_due_s()) == (0, [], None)
    assert collector.receive(7, "c", "c", "C", 0.2) == (Receipt.LATE, [])


# ------------------------------------------------------------------- bounded


def test_a_job_beyond_the_limit_ends_the_oldest() -> None:
    collector: Collector[int, str] = Collector(limit=2)
    for key in (7, 8):
        assert collector.open(key, ONE_EACH, require(2), 0.0, DUE_S) == []
    receive(collector, 0.1, "a")
    (ended,) = collector.open(9, ONE_EACH, require(2), 0.2, DUE_S)
    assert ended == Expired(7, {"a": "A"}, {"a": "a"}, ("b", "c"), False)
    assert collector.open_keys() == [8, 9]
    assert collector.receive(7, "b", "b", "B", 0.3) == (Receipt.LATE, [])


# ---------------------------------------------------------------- in any order


SENDERS = "abcd"
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["receive", "receive", "receive", "withdraw", "wait", "remove"]),
        st.sampled_from(SENDERS),
        st.integers(0, 3),
    ),
    max_size=30,
)
HOLDS = st.fixed_dictionaries({s: st.frozensets(st.integers(0, 3)) for s in SENDERS})


@given(HOLDS, STEPS, st.integers(1, 4), st.sampled_from([None, 0.4]))
def test_a_job_completes_at_most_once_and_ends_exactly_once(
    expected: Any, steps: Any, needed: int, threshold_s: float | None
) -> None:
    collector = open_job(expected, require(needed), wait_for_all_until_s=threshold_s)
    outcomes: list[Outcome[int, str]] = []
    now_s = 0.0
    for what, sender, part in steps:
        if what == "receive":
            receipt, more = collector.receive(7, sender, part, f"{part} of {sender}", now_s)
            assert receipt is not Receipt.UNKNOWN
            assert (receipt is Receipt.LATE) == any(isinstance(o, Expired) for o in outcomes)
        elif what == "wait":
            now_s += 0.1
            more = collector.end_due(now_s)
        else:
            if what == "remove":
                collector.remove_parts([sender])
            more = collector.withdraw([sender], now_s)
        outcomes += more
        assert len(collector) == (not any(isinstance(o, Expired) for o in outcomes))
    outcomes += collector.end_due(DUE_S)
    complete = [o for o in outcomes if isinstance(o, Complete)]
    ended = outcomes[-1]
    assert isinstance(ended, Expired)
    assert len(outcomes) == len(complete) + 1
    assert ended.completed == (len(complete) == 1)
    for outcome in outcomes:
        assert outcome.parts.keys() == outcome.senders.keys()
        assert all(v == f"{p} of {outcome.senders[p]}" for p, v in outcome.parts.items())
        assert set(outcome.missing) <= set(SENDERS)
    for outcome in complete:
        assert len(outcome.parts) >= needed


def test_the_time_a_job_was_opened_counts_from_there() -> None:
    collector: Collector[int, str] = Collector()
    collector.open(7, ONE_EACH, require(1), 5.0, 6.0)
    (complete,) = receive(collector, 5.25, "a")
    assert isinstance(complete, Complete)
    assert complete.after_s == pytest.approx(0.25)
