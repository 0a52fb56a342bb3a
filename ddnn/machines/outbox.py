"""Answers on their way to the store: written down first, sent, kept until confirmed."""

from __future__ import annotations

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

CONFIRM_WITHIN_S = 2.0  # a store that is there confirms well within this
LIMIT = 100_000  # about 40 MB; the oldest are given up beyond it, and counted


class Outbox:
    """Publishes each answer at once on `result`; what no store confirms goes to `backlog`.

    Delivery is end to end: a broker's receipt is not enough, for the broker may die before the
    store has seen the answer. The store is idempotent, so sending twice harms nobody.
    """

    def __init__(self, site: str, node: str, pending: Iterable[Answer] = ()) -> None:
        self.site = site
        self.node = node
        self.counts: dict[str, int] = {}
        # sample -> (answer, when it was last sent; None: never)
        self._pending: dict[int, tuple[Answer, float | None]] = {
            answer.sample: (answer, None) for answer in pending
        }
        self._connected = False
        self._stores = AnyOf()
        self._check_s: float | None = None

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
        sent_s = now.monotonic_s if self._connected else None
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
            case Received(Topic(_, Kind.ACK, self.node), AnswerAck() as stored):
                known = [sample for sample in stored.samples if self._pending.pop(sample, None)]
                more = self._deliver(now) if len(known) == MAX_BATCH else []
                return [Forget(known), *more] if known else []
            case Received(Topic(site, Kind.STATUS, node), Status(role="cloud" | "store") as status):
                if self._stores.status(f"{site}/{node}", status):
                    return self._deliver(now)
        if self._check_s is not None and now.monotonic_s >= self._check_s:
            return self._deliver(now)
        return []

    def deadline_s(self) -> float | None:
        return self._check_s

    def _deliver(self, now: Now) -> list[Effect]:
        """One batch of what was never sent, or sent and not confirmed in time."""
        self._check_s = now.monotonic_s + CONFIRM_WITHIN_S if self._pending else None
        if not self._connected or not self._stores:
            return []
        stale_s = now.monotonic_s - CONFIRM_WITHIN_S
        batch: list[Answer] = []
        for sample, (answer, sent_s) in self._pending.items():
            if sent_s is None or sent_s <= stale_s:
                batch.append(msgspec.structs.replace(answer, late=True))
                self._pending[sample] = (answer, now.monotonic_s)
                if len(batch) == MAX_BATCH:
                    break
        if not batch:
            return []
        return [Publish(Topic(self.site, Kind.BACKLOG, self.node), Backlog(batch))]
