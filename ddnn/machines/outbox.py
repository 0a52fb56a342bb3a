"""Answers on their way to the store: kept on disk, sent, and forgotten once confirmed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from ddnn.machines.membership import AnyOf
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Forget,
    Keep,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.messages import MAX_BATCH, Answer, AnswerAck, Backlog, Status
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

CONFIRM_WITHIN_S = 2.0  # a store that is there needs much less
NEVER_S = -math.inf
LIMIT = 100_000  # about 40 MB; beyond it the oldest are given up and counted


class Outbox:
    """Publishes each answer at once on `answer`, and on `backlog` until a store confirms it.

    Delivery is end to end: a broker's receipt is not enough, since the broker may die before the
    store has read the answer. The store is idempotent, so that sending twice does no harm.
    """

    def __init__(self, site: str, node: str, pending: Iterable[Answer] = ()) -> None:
        self.site = site
        self.node = node
        self.counts: dict[str, int] = {}
        # sample -> (answer, when it was last sent)
        self._pending: dict[int, tuple[Answer, float]] = {
            answer.sample: (answer, NEVER_S) for answer in pending
        }
        self._connected = False
        self._stores = AnyOf()
        self._check_s: float | None = None  # None: nothing is pending

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def gauges(self) -> dict[str, float]:
        return {"outbox": float(len(self._pending))}

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.ACK, self.site, self.node),
            *presence_filters(self.site),
        ]

    def post(self, answer: Answer, now: Now) -> list[Effect]:
        """Keep the answer and publish it if there is a broker."""
        effects: list[Effect] = [Keep(answer)]
        if self._connected:
            effects.append(Publish(Topic(self.site, Kind.ANSWER), answer))
        sent_s = now.monotonic_s if self._connected else NEVER_S
        self._pending[answer.sample] = (answer, sent_s)
        if len(self._pending) > LIMIT:
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            self.counts["answers_given_up"] = self.counts.get("answers_given_up", 0) + 1
            effects.append(Forget([oldest]))
        if self._check_s is None:
            self._check_s = now.monotonic_s + CONFIRM_WITHIN_S
        return effects

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Connected():
                self._connected = True
                self._check_s = now.monotonic_s + CONFIRM_WITHIN_S / 2
            case Disconnected():
                self._connected = False
                self._stores.clear()
            case Received(Topic(_, Kind.ACK, self.node), AnswerAck() as ack):
                known = [sample for sample in ack.samples if self._pending.pop(sample, None)]
                more = self._deliver(now) if len(known) == MAX_BATCH else []
                return [Forget(known), *more] if known else []
            case Received(Topic(site, Kind.STATUS, node), Status(role="cloud" | "store") as status):
                if self._stores.take_status(f"{site}/{node}", status):
                    return self._deliver(now)
        if self._check_s is not None and now.monotonic_s >= self._check_s:
            return self._deliver(now)
        return []

    def deadline_s(self) -> float | None:
        return self._check_s

    def _deliver(self, now: Now) -> list[Effect]:
        """Send one batch of the answers that were never sent, or not confirmed in time."""
        self._check_s = now.monotonic_s + CONFIRM_WITHIN_S if self._pending else None
        if not self._connected or not self._stores:
            return []
        stale_s = now.monotonic_s - CONFIRM_WITHIN_S
        batch: list[Answer] = []
        for sample, (answer, sent_s) in self._pending.items():
            if sent_s <= stale_s:
                batch.append(msgspec.structs.replace(answer, late=True))
                self._pending[sample] = (answer, now.monotonic_s)
                if len(batch) == MAX_BATCH:
                    break
        if not batch:
            return []
        return [Publish(Topic(self.site, Kind.BACKLOG, self.node), Backlog(batch))]
