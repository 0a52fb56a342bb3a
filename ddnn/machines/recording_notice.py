"""Announces in the log of a node that devices of its site are asked for pictures."""

from __future__ import annotations

import math

from ddnn.protocol.machine import Effect, Event, Log, Now, Received
from ddnn.protocol.record_messages import RecordOrder
from ddnn.protocol.topics import Kind, Topic, topic_filter

NOTICE_EVERY_S = 30.0  # between two lines while it goes on
SILENT_S = 10.0  # orders are repeated more often; without any it has ended


class RecordingNotice:
    """A part of a composite machine; it only listens. Its wall clock must be the site's."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.counts: dict[str, int] = {}
        self._session = ""
        self._notice_at_s = -math.inf
        self._end_at_s = math.inf  # monotonic; infinite where nothing is recorded

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.RECORD_ORDER, self.site)]

    def deadline_s(self) -> float | None:
        return self._end_at_s if math.isfinite(self._end_at_s) else None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Received(Topic(_, Kind.RECORD_ORDER), RecordOrder() as order):
                return self._take_order(order, now)
        return self._end() if now.monotonic_s >= self._end_at_s else []

    def _take_order(self, order: RecordOrder, now: Now) -> list[Effect]:
        left_s = order.until_s - now.wall_s
        if left_s <= 0:
            return self._end() if order.session == self._session else []
        if order.session != self._session:
            self._session, self._notice_at_s = order.session, -math.inf
        self._end_at_s = now.monotonic_s + min(left_s, SILENT_S)
        if now.monotonic_s < self._notice_at_s:
            return []
        self._notice_at_s = now.monotonic_s + NOTICE_EVERY_S
        text = "RECORDING: devices that allow it send pictures to a collector (%s), %.0f s more"
        return [Log("warning", text, (order.session, left_s))]

    def _end(self) -> list[Effect]:
        if math.isinf(self._end_at_s):
            return []
        session, self._session, self._end_at_s = self._session, "", math.inf
        return [Log("warning", "the recording has ended (%s)", (session,))]
