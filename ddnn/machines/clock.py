"""Site time: the lead edge's wall clock, as a device estimates it.

Cameras must agree which instant a sample shows, and a Pi without a battery for its clock may be
years off after a boot without network. The device requests the lead edge's time and keeps the
estimate on its own monotonic clock, so that a step of its wall clock does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Machine,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.messages import Status, TimeReply, TimeRequest
from ddnn.protocol.topics import Kind, Topic, topic_filter

REQUEST_EVERY_S = (0.25, 20.0)  # the interval doubles from the first to the second
KEEP = 8  # exchanges; the one with the shortest round trip counts
KEEP_S = 600.0  # the clocks may have drifted apart since an older exchange
DRIFT = 2e-4  # at most, of one clock against the other; crystals have a tenth of it
MAX_ROUND_TRIP_S = 1.0  # a slower exchange is of no use


class _Exchange(NamedTuple):
    at_s: float  # monotonic
    round_trip_s: float
    offset_s: float  # site time - monotonic


class SiteClock:
    """Cristian's algorithm with a minimum filter: of several exchanges the one with the shortest
    round trip, whose error is at most half of it. Sans-IO; see ddnn.protocol.machine."""

    def __init__(self, site: str, node: str) -> None:
        self.site, self.node = site, node
        # Replaced, never changed: other threads read it.
        self._exchanges: tuple[_Exchange, ...] = ()
        self._interval_s = REQUEST_EVERY_S[0]
        self._request_at_s = math.inf  # infinite without a broker
        self._skew_s = 0.0

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.TIME_REPLY, self.site, self.node)]

    def deadline_s(self) -> float | None:
        return None if math.isinf(self._request_at_s) else self._request_at_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Connected():
                self._request_often_from(now.monotonic_s)
            case Disconnected():
                self._request_at_s = math.inf
            case Received(Topic(_, Kind.STATUS), Status(role="edge", state="online")):
                if self.deadline_s() is not None:  # the lead edge may be another process now
                    self._request_often_from(now.monotonic_s)
            case Received(Topic(_, Kind.TIME_REPLY, self.node), TimeReply() as reply):
                self._take_reply(reply, now)
        if now.monotonic_s < self._request_at_s:
            return []
        self._request_at_s = now.monotonic_s + self._interval_s
        self._interval_s = min(2 * self._interval_s, REQUEST_EVERY_S[1])
        request = TimeRequest(now.monotonic_s)  # no step of the wall clock changes the round trip
        return [Publish(Topic(self.site, Kind.TIME_REQUEST, self.node), request)]

    def time_s(self, now: Now) -> float:
        """Site time; without a fresh exchange the own wall clock's time. Safe in any thread."""
        best = self._best(now.monotonic_s)
        return now.wall_s if best is None else now.monotonic_s + best.offset_s

    @property
    def counts(self) -> dict[str, int]:
        return {}

    @property
    def gauges(self) -> dict[str, float]:
        """By how much the own wall clock was ahead of site time at the last exchange."""
        return {"clock_skew_s": self._skew_s} if self._exchanges else {}

    def _request_often_from(self, time_s: float) -> None:
        self._request_at_s, self._interval_s = time_s, REQUEST_EVERY_S[0]

    def _take_reply(self, reply: TimeReply, now: Now) -> None:
        round_trip_s = now.monotonic_s - reply.echo_s
        if not 0 <= round_trip_s <= MAX_ROUND_TRIP_S:
            return  # late, or the reply to a request of another process
        offset_s = reply.replied_at_s + round_trip_s / 2 - now.monotonic_s
        exchange = _Exchange(now.monotonic_s, round_trip_s, offset_s)
        if any(_contradict(exchange, other) for other in self._exchanges):
            self._exchanges = ()  # the lead's clock was set: earlier replies are wrong now
            self._request_often_from(now.monotonic_s + REQUEST_EVERY_S[0])
        self._exchanges = (*self._exchanges, exchange)[-KEEP:]
        self._skew_s = now.wall_s - self.time_s(now)

    def _best(self, monotonic_s: float) -> _Exchange | None:
        fresh = [e for e in self._exchanges if monotonic_s - e.at_s <= KEEP_S]
        return min(fresh, key=lambda exchange: exchange.round_trip_s, default=None)


class OnSiteTime:
    """A machine whose wall clock is the site's, so that its time stamps fit those of others."""

    def __init__(self, machine: Machine, clock: SiteClock) -> None:
        self._machine, self._clock = machine, clock

    @property
    def counts(self) -> Mapping[str, int]:
        return self._machine.counts

    @property
    def gauges(self) -> Mapping[str, float]:
        return self._machine.gauges

    def subscriptions(self) -> list[str]:
        return self._machine.subscriptions()

    def deadline_s(self) -> float | None:
        return self._machine.deadline_s()

    def handle(self, event: Event, now: Now) -> list[Effect]:
        return self._machine.handle(event, Now(now.monotonic_s, self._clock.time_s(now)))


def _contradict(a: _Exchange, b: _Exchange) -> bool:
    """Whether no offset explains both exchanges: each is right to half of its round trip."""
    error_s = (a.round_trip_s + b.round_trip_s) / 2 + DRIFT * abs(a.at_s - b.at_s) + 1e-3
    return abs(a.offset_s - b.offset_s) > error_s
