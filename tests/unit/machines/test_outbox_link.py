"""Kept answers over links of every kind, in virtual time: they drain beside the new ones."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count

import msgspec
import numpy as np
import pytest

from ddnn.machines.outbox import Outbox
from ddnn.protocol.codec import encode
from ddnn.protocol.machine import (
    Connected,
    Effect,
    Event,
    Forget,
    Keep,
    Now,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import Answer, AnswerAck, Backlog, Status
from ddnn.protocol.topics import Kind, Topic
from tests.answer_builder import make_answer

HEADER_BYTES = 40
STORE_S = 0.03  # until the store confirms


class Uplink:
    """An outbox, a link of some bytes per second, and a store that confirms what arrives."""

    def __init__(
        self,
        kept: int,
        bytes_per_s: float,
        *,
        delay_s: float = 0.02,
        loss: float = 0.0,
        refused: Iterable[int] = (),
    ) -> None:
        """kept: how many answers are pending from before; refused: no store takes these."""
        self.bytes_per_s, self.delay_s, self.loss = bytes_per_s, delay_s, loss
        self.refused = frozenset(refused)
        self.now_s = 0.0
        self.pending = set(range(kept))
        self.stored: dict[int, float] = {}  # when
        self.posted: dict[int, float] = {}
        self.sent_bytes = 0
        self.most_queued_s = 0.0
        self._free_s = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._random = np.random.default_rng(0)
        self.outbox = Outbox("home", "edge", [make_answer(n) for n in range(kept)])
        self._tick_s = -1.0
        self.handle(Connected())
        topic = Topic("home", Kind.STATUS, "cloud")
        self.handle(Received(topic, Status("cloud", 1, "online")))

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time_s, next(self._order), action))

    def run(self, until_s: float, *, until: Callable[[], bool] = lambda: False) -> None:
        while self._queue and self._queue[0][0] <= until_s and not until():
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
        if not until():
            self.now_s = until_s

    def post_every(self, period_s: float, seconds: float, first: int = 1_000_000) -> None:
        for n in range(int(seconds / period_s)):
            self.at(self.now_s + n * period_s, lambda sample=first + n: self.post(sample))  # type: ignore[misc]

    def post(self, sample: int) -> None:
        self.posted[sample] = self.now_s
        self.pending.add(sample)
        self._perform(self.outbox.post(make_answer(sample), Now(self.now_s, 0.0)))

    def handle(self, event: Event) -> None:
        self._perform(self.outbox.handle(event, Now(self.now_s, 0.0)))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Publish():
                    self._transmit(effect)
                case Forget():
                    self.pending -= set(effect.samples)
                case Keep():
                    pass
        due_s = self.outbox.deadline_s()
        if due_s is not None and due_s != self._tick_s:
            assert due_s > self.now_s or not effects
            self._tick_s = due_s
            self.at(max(due_s, self.now_s), lambda: self._tick(due_s))

    def _tick(self, due_s: float) -> None:
        if self._tick_s == due_s:
            self._tick_s = -1.0
            self.handle(Tick())

    def _transmit(self, effect: Publish) -> None:
        data = encode(effect.message)
        self.sent_bytes += len(data) + HEADER_BYTES
        self._free_s = max(self._free_s, self.now_s) + (len(data) + HEADER_BYTES) / self.bytes_per_s
        self.most_queued_s = max(self.most_queued_s, self._free_s - self.now_s)
        message = effect.message
        answers = message.answers if isinstance(message, Backlog) else [message]
        if self._random.random() >= self.loss:
            self.at(self._free_s + self.delay_s, lambda: self._store(answers))  # type: ignore[arg-type]

    def _store(self, answers: list[Answer]) -> None:
        samples = [answer.sample for answer in answers]
        if self.refused.intersection(samples):
            return  # a receiver decodes a message as a whole
        for sample in samples:
            self.stored.setdefault(sample, self.now_s)
        ack = Received(Topic("home", Kind.ACK, "edge"), AnswerAck(samples))
        self.at(self.now_s + STORE_S + self.delay_s, lambda: self.handle(ack))


ANSWER_BYTES = len(encode(make_answer(0)))


@pytest.mark.parametrize("bytes_per_s", [2_000, 6_000, 50_000])
def test_what_an_outage_left_drains_beside_the_new_answers(bytes_per_s: int) -> None:
    """The new ones take a sixth of the link; 25 s of its whole rate are kept."""
    kept = 25 * bytes_per_s // ANSWER_BYTES
    uplink = Uplink(kept, bytes_per_s)
    period_s = ANSWER_BYTES / (bytes_per_s / 6)
    uplink.post_every(period_s, 60.0)
    uplink.run(60.0, until=lambda: len(uplink.stored.keys() & set(range(kept))) == kept)
    assert uplink.now_s < 38.0  # 25 s / (5/6) = 30 s at best
    live = len(uplink.posted)
    assert uplink.sent_bytes < 1.15 * (kept + live) * (ANSWER_BYTES + HEADER_BYTES)
    uplink.run(70.0)
    delays_s = [uplink.stored[n] - at_s for n, at_s in uplink.posted.items() if at_s > 15.0]
    assert max(delays_s) < 3.0
    assert not uplink.pending


@pytest.mark.parametrize("delay_s", [0.001, 0.3, 2.0])
def test_a_long_backlog_uses_a_fast_link(delay_s: float) -> None:
    uplink = Uplink(5_000, 1e6, delay_s=delay_s)
    uplink.run(300.0, until=lambda: not uplink.pending)
    assert not uplink.pending
    assert uplink.now_s < 5_000 * ANSWER_BYTES / 1e6 + 60 * delay_s + 3.0
    assert uplink.sent_bytes < 1.2 * 5_000 * (ANSWER_BYTES + HEADER_BYTES)


def test_what_waits_on_the_link_is_bounded() -> None:
    """However much is kept, a new answer does not wait behind it."""
    uplink = Uplink(20_000, 6_000)
    uplink.run(60.0)
    assert uplink.most_queued_s < 4.0
    assert uplink.sent_bytes > 0.8 * 60 * 6_000


def test_a_link_that_becomes_thin_still_drains() -> None:
    uplink = Uplink(3_000, 60_000)
    uplink.post_every(0.5, 250.0)
    uplink.at(4.0, lambda: setattr(uplink, "bytes_per_s", 6_000.0))
    uplink.run(400.0, until=lambda: len(uplink.stored.keys() & set(range(3_000))) == 3_000)
    assert uplink.now_s < 1.4 * 3_000 * ANSWER_BYTES / 5_000


def test_lost_messages_are_sent_again() -> None:
    uplink = Uplink(1_000, 50_000, loss=0.2)
    uplink.post_every(0.1, 30.0)
    uplink.run(120.0)
    assert not uplink.pending
    assert uplink.outbox.counts == {}


@pytest.mark.parametrize("with_live", [True, False])
@pytest.mark.parametrize("refused", [{7}, {0, 1}, {100, 300}, set(range(40, 80))], ids=str)
def test_an_answer_that_no_store_takes_does_not_keep_the_others(
    refused: set[int], with_live: bool
) -> None:
    uplink = Uplink(400, 50_000, refused=refused)
    if with_live:
        uplink.post_every(0.5, 600.0)
    others = set(range(400)) - refused
    # Without new answers only silence reports what was refused.
    uplink.run(60.0 if with_live else 600.0, until=lambda: others <= uplink.stored.keys())
    assert others <= uplink.stored.keys()
    if with_live:  # the store confirms others: these are given up
        uplink.run(700.0)
        assert not uplink.pending
        assert uplink.outbox.counts == {"answers_given_up": len(refused)}


def test_an_answer_is_not_given_up_while_the_store_confirms_nothing() -> None:
    uplink = Uplink(5, 50_000, refused=range(5))
    uplink.run(3_600.0)
    assert uplink.pending == set(range(5))
    assert uplink.sent_bytes < 3_600 / 7 * 5 * (ANSWER_BYTES + HEADER_BYTES)


def test_a_message_is_bounded_in_bytes() -> None:
    answers = [
        msgspec.structs.replace(make_answer(n), probabilities=[0.123456789] * 500)
        for n in range(200)
    ]
    outbox = Outbox("home", "edge", answers)
    outbox.handle(Connected(), Now(0.0, 0.0))
    topic = Topic("home", Kind.STATUS, "cloud")
    effects = outbox.handle(Received(topic, Status("cloud", 1, "online")), Now(0.0, 0.0))
    seen = 0
    for step in range(1, 2000):
        batches = [e.message for e in effects if isinstance(e, Publish)]
        assert all(len(encode(batch)) < 64_000 for batch in batches)
        done = [a.sample for batch in batches if isinstance(batch, Backlog) for a in batch.answers]
        seen += len(done)
        if not len(outbox):
            break
        ack = Received(Topic("home", Kind.ACK, "edge"), AnswerAck(done))
        effects = outbox.handle(ack, Now(0.01 * step, 0.0))
    assert seen == 200
