"""Answers on their way to the store, in virtual time."""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddnn.machines import undelivered as module
from ddnn.machines.flow import TIMEOUT_S
from ddnn.machines.membership import AnyOf
from ddnn.machines.outbox import Outbox
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Forget,
    Keep,
    Log,
    Now,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import MAX_BATCH, Answer, AnswerAck, Backlog, Status
from ddnn.protocol.topics import Kind, Topic

RESULT = Topic("home", Kind.ANSWER, "cam1")
BACKLOG = Topic("home", Kind.BACKLOG, "cam1")


def at(time_s: float) -> Now:
    return Now(time_s, 1.78e9 + time_s)


def answer(sample: int, **changes: Any) -> Answer:
    made = Answer(
        sample=sample,
        node="cam1",
        exit="device",
        label=0,
        probabilities=[1.0],
        eta=0.0,
        members=["cam1"],
        missing=[],
        quality="degraded",
        expected_accuracy=None,
        bundle="b",
        captured_at_s=0.0,
        answered_at_s=0.0,
        latency_s=0.0,
    )
    return msgspec.structs.replace(made, **changes)


def presence(state: Any = "online", session: int = 1, node: str = "cloud", role: Any = "cloud"):
    return Received(Topic("home", Kind.STATUS, node), Status(role, session, state))


def make_confirmation(*samples: int, node: str = "cam1") -> Received:
    return Received(Topic("home", Kind.ACK, node), AnswerAck(list(samples)))


def backlogs(effects: list[Effect]) -> list[list[int]]:
    return [
        [a.sample for a in e.message.answers]
        for e in effects
        if isinstance(e, Publish) and isinstance(e.message, Backlog)
    ]


@pytest.fixture
def outbox() -> Outbox:
    """Connected, with a store online, at 0 s."""
    box = Outbox("home", "cam1")
    box.handle(Connected(), at(0))
    box.handle(presence(), at(0))
    return box


def test_an_answer_is_kept_before_it_is_published(outbox: Outbox) -> None:
    effects = outbox.post(answer(7), at(0))
    assert effects == [Keep(answer(7)), Publish(RESULT, answer(7))]
    assert len(outbox) == 1


def test_without_a_broker_it_is_only_kept() -> None:
    box = Outbox("home", "cam1")
    assert box.post(answer(7), at(0)) == [Keep(answer(7))]
    box.handle(Connected(), at(1))
    box.handle(Disconnected(), at(2))
    assert box.post(answer(8), at(3)) == [Keep(answer(8))]
    assert len(box) == 2


def test_what_is_confirmed_is_forgotten_and_never_sent_again(outbox: Outbox) -> None:
    outbox.post(answer(7), at(0))
    outbox.post(answer(8), at(0))
    assert outbox.handle(make_confirmation(7), at(0.1)) == [Forget([7])]
    assert backlogs(outbox.handle(Tick(), at(10))) == [[8]]
    assert outbox.handle(make_confirmation(8), at(10.1)) == [Forget([8])]
    assert outbox.handle(Tick(), at(20)) == []
    assert outbox.deadline_s() is None
    assert len(outbox) == 0


def test_confirming_again_or_what_is_not_ours_does_nothing(outbox: Outbox) -> None:
    outbox.post(answer(7), at(0))
    outbox.handle(make_confirmation(7), at(0.1))
    assert outbox.handle(make_confirmation(7, 99), at(0.2)) == []
    outbox.post(answer(8), at(0.3))
    assert outbox.handle(make_confirmation(8, node="cam2"), at(0.4)) == []
    assert len(outbox) == 1


def test_unconfirmed_answers_go_to_the_backlog_marked_late(outbox: Outbox) -> None:
    outbox.post(answer(7), at(0))
    assert outbox.handle(Tick(), at(TIMEOUT_S - 0.01)) == []
    effects = outbox.handle(Tick(), at(TIMEOUT_S))
    assert effects == [Publish(BACKLOG, Backlog([answer(7, late=True)]))]
    assert outbox.handle(Tick(), at(TIMEOUT_S + 0.1)) == []  # it has just been sent
    assert outbox.handle(Tick(), at(2 * TIMEOUT_S)) == []  # nothing is confirmed: later
    assert backlogs(outbox.handle(Tick(), at(3 * TIMEOUT_S))) == [[7]]


def test_its_own_answer_is_not_marked_late(outbox: Outbox) -> None:
    """The pending one stays as it was: only what is delivered again is late."""
    outbox.post(answer(7), at(0))
    outbox.handle(Tick(), at(2))
    assert list(outbox._undelivered) == [answer(7)]


def test_there_is_always_a_tick_to_come_while_something_is_pending(outbox: Outbox) -> None:
    outbox.post(answer(7), at(0))
    now_s = 0.0
    for _ in range(20):
        due_s = outbox.deadline_s()
        assert due_s is not None
        assert now_s < due_s <= now_s + TIMEOUT_S
        now_s = due_s
        outbox.handle(Tick(), at(now_s))


def test_only_to_a_store_that_is_online() -> None:
    box = Outbox("home", "cam1", [answer(1), answer(2)])
    assert box.handle(Connected(), at(0)) == []
    assert box.handle(Tick(), at(5)) == []
    assert box.handle(presence(node="edge", role="edge"), at(6)) == []
    assert box.handle(presence("lost"), at(7)) == []
    assert backlogs(box.handle(presence(), at(8))) == [[1, 2]]


def test_a_will_of_the_stores_old_session_does_not_count(outbox: Outbox) -> None:
    outbox.handle(presence(session=2), at(0.1))
    outbox.handle(presence("lost", session=1), at(0.2))
    outbox.post(answer(1), at(1))
    assert backlogs(outbox.handle(Tick(), at(4))) == [[1]]
    outbox.handle(presence("lost", session=2), at(5))
    assert outbox.handle(Tick(), at(20)) == []


def test_one_of_two_stores_is_enough(outbox: Outbox) -> None:
    outbox.handle(presence(node="cloud2"), at(0))
    outbox.handle(presence("lost"), at(0))
    outbox.post(answer(1), at(0))
    assert backlogs(outbox.handle(Tick(), at(4))) == [[1]]


def test_after_a_reconnect_the_store_must_be_heard_of_again(outbox: Outbox) -> None:
    outbox.post(answer(1), at(0))
    outbox.handle(Disconnected(), at(1))
    outbox.handle(Connected(), at(50))
    assert outbox.handle(Tick(), at(60)) == []
    assert backlogs(outbox.handle(presence(), at(61))) == [[1]]


def test_answers_of_an_earlier_run_are_delivered(outbox: Outbox) -> None:
    box = Outbox("home", "cam1", [answer(n) for n in range(3)])
    assert len(box) == 3
    box.handle(Connected(), at(0))
    assert backlogs(box.handle(presence(), at(0.1))) == [[0, 1, 2]]


def test_a_long_backlog_goes_in_order_as_it_is_confirmed() -> None:
    count = 2 * MAX_BATCH + 10
    box = Outbox("home", "cam1", [answer(n) for n in range(count)])
    box.handle(Connected(), at(0))
    sent = backlogs(box.handle(presence(), at(0.1)))
    batches = []
    while sent:
        batches += sent
        sent = backlogs(box.handle(make_confirmation(*chain(*sent)), at(0.2)))
    assert list(chain(*batches)) == list(range(count))
    assert max(map(len, batches)) <= MAX_BATCH
    assert len(batches) < 30
    assert len(box) == 0


@pytest.mark.parametrize(
    "changes",
    [{"sample": -5}, {"eta": float("nan")}, {"captured_at_s": 1e300}, {"label": 70_000}],
    ids=str,
)
def test_what_no_receiver_could_read_is_not_kept(outbox: Outbox, changes: dict[str, Any]) -> None:
    effects = outbox.post(answer(7, **changes) if "sample" not in changes else answer(-5), at(0))
    assert [type(e) for e in effects] == [Log]
    assert len(outbox) == 0
    assert outbox.counts == {"answers_invalid": 1}


def test_answers_under_another_name_are_given_up() -> None:
    """The state directory of another node: a store takes only the answers of the topic's node."""
    box = Outbox("home", "cam2", [answer(1), answer(2, node="cam2")])
    effects = box.handle(Connected(), at(0))
    assert [e for e in effects if isinstance(e, Forget)] == [Forget([1])]
    assert backlogs(box.handle(presence(), at(1))) == [[2]]
    assert box.counts == {"answers_given_up": 1}


def test_memory_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 10 * len(encode(answer(10))))
    box = Outbox("home", "cam1", [answer(n) for n in range(10, 18)])
    for n in range(18, 40):
        box.post(answer(n), at(0))
    assert [a.sample for a in box._undelivered] == list(range(30, 40))
    assert box.counts == {"answers_given_up": 20}


def test_posting_the_same_sample_again_keeps_one(outbox: Outbox) -> None:
    outbox.post(answer(1), at(0))
    outbox.post(answer(1, label=1), at(0))
    assert [a.label for a in outbox._undelivered] == [1]


def test_beyond_the_limit_the_oldest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 3)
    box = Outbox("home", "cam1")
    for n in range(5):
        effects = box.post(answer(n), at(n))
        given_up = [e for e in effects if isinstance(e, Forget)]
        assert given_up == ([Forget([n - 3])] if n >= 3 else [])
    assert [a.sample for a in box._undelivered] == [2, 3, 4]
    assert box.counts == {"answers_given_up": 2}


def test_a_flood_of_stores_takes_no_room(outbox: Outbox) -> None:
    for n in range(1000):
        outbox.handle(presence(node=f"cloud{n}"), at(0))
    assert len(outbox._stores._sessions) == AnyOf.LIMIT
    outbox.handle(presence(session=9), at(0))
    assert outbox._stores._sessions["home/cloud"] == 9  # who is known stays known


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["post", "up", "down", "store", "gone", "confirm", "tick"]),
        st.integers(0, 9),
        st.sampled_from([0.0, 0.3, 1.0, 2.0, 5.0]),
    ),
    max_size=40,
)


@settings(max_examples=80)
@given(_EVENTS)
@example([("post", 0, 0.0), ("up", 0, 0.0), ("store", 0, 0.0)] + 3 * [("post", 0, 6.0)])
def test_nothing_is_lost_and_nothing_resurrected(events: list[tuple[str, int, float]]) -> None:
    """Whatever happens: pending = posted - confirmed; once the store stays, all of it comes."""
    box = Outbox("home", "cam1")
    now_s, connected, store = 0.0, False, False
    pending: set[int] = set()
    posted = 0

    def handle(event: Event) -> list[Effect]:
        effects = box.handle(event, at(now_s))
        for e in effects:
            if isinstance(e, Publish):
                assert connected
                assert store
                assert decode(e.topic.kind, encode(e.message)) == e.message
                assert all(a.late and a.sample in pending for a in e.message.answers)
        return effects

    for what, number, step_s in events:
        now_s += step_s
        if what == "post":
            pending.add(posted)
            effects = box.post(answer(posted), at(now_s))
            assert [type(e) for e in effects] == [Keep, Publish][: 1 + connected]
            posted += 1
        elif what == "up" and not connected:
            connected = True
            handle(Connected())
        elif what == "down" and connected:
            connected = store = False
            handle(Disconnected())
        elif what == "store" and connected:
            store = True
            handle(presence())
        elif what == "gone" and connected:
            store = False
            handle(presence("lost"))
        elif what == "confirm" and connected:
            forgotten = [e for e in handle(make_confirmation(number)) if isinstance(e, Forget)]
            assert forgotten == ([Forget([number])] if number in pending else [])
            pending.discard(number)
        elif what == "tick":
            handle(Tick())
        assert {a.sample for a in box._undelivered} == pending
    connected = store = True
    handle(Connected())
    sent = backlogs(handle(presence()))
    for _ in range(30):
        now_s += TIMEOUT_S
        sent += backlogs(handle(Tick()))
        now_s += 0.1
        ack = handle(make_confirmation(*chain(*sent)))
        sent += backlogs(ack)
        for effect in ack:
            if isinstance(effect, Forget):
                pending -= set(effect.samples)
    assert not pending
    assert len(box) == 0
