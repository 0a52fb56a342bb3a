"""What time it is at the site: the lead edge's wall clock, as a device estimates it.

Cameras must agree which instant a sample shows, and a Pi without a battery for its clock may be
years off after a boot without network. The device asks the lead edge for its time and keeps the
estimate on its own monotonic clock, so that a step of its wall clock does not move it.
"""

from __future__ import annotations

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

ASK_S = (0.25, 20.0)  # between questions: twice as long after each, up to the greater
KEEP = 8  # exchanges; the one with the shortest round trip counts
KEEP_S = 600.0  # an older one says little of a drifting clock
DRIFT = 2e-4  # at most, of one clock against the other; crystals have a tenth of it
MOST_ROUND_TRIP_S = 1.0  # a slower exchange says nothing


class _Exchange(NamedTuple):
    at_s: float  # monotonic
    round_trip_s: float
    offset_s: float  # site time - monotonic


class SiteClock:
    """Cristian's algorithm with a minimum filter: of several exchanges the one with the shortest
    round trip, whose error is at most half of it. Sans-IO; see ddnn.protocol.machine."""

    def __init__(self, site: str, node: str) -> None:
        self.site, self.node = site, node
        self._exchanges: tuple[
            _Exchange, ...
        ] = ()  # replaced, never changed: other threads read it
        self._wait_s = ASK_S[0]
        self._ask_at_s: float | None = None  # None: nobody is there to ask
        self._skew_s = 0.0

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.TIME_REPLY, self.site, self.node)]

    def deadline_s(self) -> float | None:
        return self._ask_at_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Connected():
                self._ask_at_s, self._wait_s = now.monotonic_s, ASK_S[0]
            case Disconnected():
                self._ask_at_s = None
            case Received(Topic(_, Kind.STATUS), Status(role="edge", state="online")):
                if self._ask_at_s is not None:  # there is somebody to ask, perhaps somebody new
                    self._ask_at_s, self._wait_s = now.monotonic_s, ASK_S[0]
            case Received(Topic(_, Kind.TIME_REPLY, self.node), TimeReply() as told):
                self._told(told, now)
        if self._ask_at_s is None or now.monotonic_s < self._ask_at_s:
            return []
        self._ask_at_s = now.monotonic_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, ASK_S[1])
        ask = TimeRequest(now.monotonic_s)  # of a clock that nothing steps
        return [Publish(Topic(self.site, Kind.TIME_REQUEST, self.node), ask)]

    def time_s(self, now: Now) -> float:
        """Site time; the own wall clock's without a late word of the lead edge. Any thread."""
        best = self._best(now.monotonic_s)
        return now.wall_s if best is None else now.monotonic_s + best.offset_s

    @property
    def counts(self) -> dict[str, int]:
        return {}

    @property
    def gauges(self) -> dict[str, float]:
        """How far the own wall clock was ahead of site time at the last exchange."""
        return {"clock_skew_s": self._skew_s} if self._exchanges else {}

    def _told(self, told: TimeReply, now: Now) -> None:
        round_trip_s = now.monotonic_s - told.echo_s
        if not 0 <= round_trip_s <= MOST_ROUND_TRIP_S:
            return  # late, or an answer to nobody's question
        offset_s = told.replied_at_s + round_trip_s / 2 - now.monotonic_s
        exchange = _Exchange(now.monotonic_s, round_trip_s, offset_s)
        if any(_contradict(exchange, other) for other in self._exchanges):
            self._exchanges = ()  # the lead's clock was set: what it told before is no longer so
            self._ask_at_s, self._wait_s = now.monotonic_s + ASK_S[0], ASK_S[0]
        self._exchanges = (*self._exchanges, exchange)[-KEEP:]
        self._skew_s = now.wall_s - self.time_s(now)

    def _best(self, monotonic_s: float) -> _Exchange | None:
        fresh = [e for e in self._exchanges if monotonic_s - e.at_s <= KEEP_S]
        return min(fresh, key=lambda exchange: exchange.round_trip_s, default=None)


class OnSiteTime:
    """A machine whose wall clock is the site's: what it stamps fits what others stamp."""

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
    """Whether no offset between the clocks explains both: each is right to half its round trip."""
    error_s = (a.round_trip_s + b.round_trip_s) / 2 + DRIFT * abs(a.at_s - b.at_s) + 1e-3
    return abs(a.offset_s - b.offset_s) > error_s
