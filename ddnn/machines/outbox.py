"""Answers on their way to the store: kept on disk, sent, and forgotten once confirmed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ddnn.errors import RemoteProtocolError
from ddnn.machines.flow import TIMEOUT_S
from ddnn.machines.membership import AnyOf
from ddnn.machines.undelivered import Undelivered
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
)
from ddnn.protocol.messages import Answer, AnswerAck, Backlog, Status
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

CHECK_EVERY_S = TIMEOUT_S / 2


class Outbox:
    """Publishes each answer at once on `answer/<node>`, and on `backlog` until a store confirms it.

    Delivery is end to end: a broker's receipt is not enough, since the broker may die before the
    store has read the answer. The store is idempotent, so that sending twice does no harm.

    New answers do not wait for old ones: these travel in batches, as many as the link carries
    beside the new ones (`ddnn.machines.flow`). `ddnn.machines.undelivered` says in which batches.
    """

    def __init__(self, site: str, node: str, pending: Iterable[Answer] = ()) -> None:
        self.site = site
        self.node = node
        self.counts: dict[str, int] = {}
        self._undelivered = Undelivered()
        self._to_forget: list[int] = []  # answers of an earlier run that are given up
        self._connected = False
        self._stores = AnyOf()
        self._check_s: float | None = None  # None: nothing is pending
        for answer in pending:
            if answer.node == node:
                self._to_forget += self._undelivered.add(answer, len(encode(answer)))
            else:  # it was kept under another name: stores take a node's own answers only
                self._to_forget.append(answer.sample)
        if self._to_forget:
            self._count("answers_given_up", len(self._to_forget))

    def __len__(self) -> int:
        return len(self._undelivered)

    @property
    def gauges(self) -> dict[str, float]:
        return {"outbox": float(len(self._undelivered))}

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.ACK, self.site, self.node),
            *presence_filters(self.site),
        ]

    def post(self, answer: Answer, now: Now) -> list[Effect]:
        """Keep the answer and publish it if there is a broker.

        An answer that no receiver could read is not kept: it would be refused for ever.
        """
        data = encode(answer)
        try:
            decode(Kind.ANSWER, data)
        except RemoteProtocolError as error:
            self._count("answers_invalid")
            return [Log("error", "the answer to %d is dropped: %s", (answer.sample, error))]
        effects: list[Effect] = [Keep(answer)]
        given_up = self._undelivered.add(answer, len(data))
        if self._connected:
            effects.append(Publish(Topic(self.site, Kind.ANSWER, self.node), answer))
            self._undelivered.send(answer.sample, now.monotonic_s)
        if given_up:
            self._count("answers_given_up", len(given_up))
            effects.append(Forget(given_up))
        if self._check_s is None:
            self._check_s = now.monotonic_s + CHECK_EVERY_S
        return effects

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        if self._to_forget:
            text = "%d answers of an earlier run are given up: too many, or of another node's name"
            effects = [Log("warning", text, (len(self._to_forget),)), Forget(self._to_forget)]
            self._to_forget = []
        match event:
            case Connected():
                self._connected = True
                self._check_s = now.monotonic_s + CHECK_EVERY_S
            case Disconnected():
                self._connected = False
                self._stores.clear()
                self._undelivered.disconnect()
            case Received(Topic(_, Kind.ACK, self.node), AnswerAck() as ack):
                known = self._undelivered.confirm(ack.samples, now.monotonic_s)
                if known:
                    effects.append(Forget(known))
                    if self._undelivered.has_waiting:
                        effects += self._deliver(now)
                return effects
            case Received(Topic(site, Kind.STATUS, node), Status(role="cloud" | "store") as status):
                if self._stores.take_status(f"{site}/{node}", status):
                    # A store that was away has not got what was sent to it.
                    self._undelivered.lose_sent_until(now.monotonic_s - TIMEOUT_S)
                    return effects + self._deliver(now)
        if self._check_s is not None and now.monotonic_s >= self._check_s:
            effects += self._deliver(now)
        return effects

    def deadline_s(self) -> float | None:
        return self._check_s

    def _deliver(self, now: Now) -> list[Effect]:
        """Send as many batches as there is room for."""
        undelivered, now_s = self._undelivered, now.monotonic_s
        self._check_s = now_s + CHECK_EVERY_S if undelivered else None
        if not self._connected or not self._stores:
            return []
        effects: list[Effect] = []
        given_up = undelivered.find_refused(now_s)
        if given_up:
            self._count("answers_given_up", len(given_up))
            text = "the answers to %s are given up: the store confirms others, but not these"
            effects = [Log("error", text, (given_up,)), Forget(given_up)]
        timeout_s = undelivered.find_timeout_s()
        if timeout_s is not None and now_s >= timeout_s:
            undelivered.stall(now_s)
        while batch := undelivered.take_batch(now_s):
            late = [msgspec.structs.replace(answer, late=True) for answer in batch]
            effects.append(Publish(Topic(self.site, Kind.BACKLOG, self.node), Backlog(late)))
        timeout_s = undelivered.find_timeout_s()
        if self._check_s is not None and timeout_s is not None:
            self._check_s = min(self._check_s, timeout_s)
        return effects

    def _count(self, name: str, more: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + more
