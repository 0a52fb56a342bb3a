"""Site time: the lead edge's wall clock, as a device estimates it.

Cameras must agree which instant a sample shows, and a Pi without a battery for its clock may be
years off after a boot without network. The device requests the lead edge's time and keeps the
estimate on its own monotonic clock, so that a step of its wall clock does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ddnn.core.site_time import SET_BACK_S, SiteTime
from ddnn.machines.composite import WrappedMachine
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    KeepTime,
    Log,
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
FOLLOW_EVERY_S = 0.2  # the own clock, unless it makes a step
STEP_S = 0.05
KEEP_EVERY_S = 10.0  # between two writes of the time
MAX_ROUND_TRIP_S = 1.0  # a slower exchange does not set the time, but may confirm it
MAX_SLOW_S = 10.0  # not even that, beyond
MAX_EDGES = 100


class _Exchange(NamedTuple):
    at_s: float  # monotonic
    round_trip_s: float
    offset_s: float  # site time - monotonic


class _Estimate(NamedTuple):
    """Replaced, never changed: other threads read it."""

    epoch: int
    exchanges: tuple[_Exchange, ...] = ()
    best: _Exchange | None = None  # of these

    @classmethod
    def of(cls, epoch: int, exchanges: Sequence[_Exchange]) -> _Estimate:
        return cls(epoch, tuple(exchanges), _find_shortest(exchanges))

    def find_best(self, monotonic_s: float) -> _Exchange | None:
        """The best of those that are fresh."""
        best = self.best
        if best is None or monotonic_s - best.at_s <= KEEP_S:
            return best  # the usual case: every event asks
        return _find_shortest([e for e in self.exchanges if monotonic_s - e.at_s <= KEEP_S])


def _find_shortest(exchanges: Sequence[_Exchange]) -> _Exchange | None:
    return min(exchanges, key=lambda exchange: exchange.round_trip_s, default=None)


class SiteClock:
    """Cristian's algorithm with a minimum filter: of several exchanges the one with the shortest
    round trip, whose error is at most half of it. Sans-IO; see ddnn.protocol.machine.

    A reply that contradicts those before, or begins an epoch, counts once the next one agrees.

    Without a fresh exchange site time is the own wall clock, and where that was set back, the time
    that has run on since. A lead whose time is behind that of its own earlier replies in the same
    epoch (its disk was replaced) is asked for a later epoch.
    """

    def __init__(
        self, site: str, node: str, kept: SiteTime | None = None, started_s: float = 0.0
    ) -> None:
        """kept: the time that was written before a restart. started_s: monotonic time now."""
        self.site, self.node = site, node
        self.counts = {"clock_set_back": 0}
        self._estimate = _Estimate(kept.epoch if kept else 0)
        # Own time, which runs on when the wall clock is set back: (site time, monotonic time).
        self._own = (kept.time_s if kept else -math.inf, started_s)
        # So much later may the time have been when the process ended than when it was written.
        self._unwritten_s = KEEP_EVERY_S if kept else 0.0
        self._ahead_s = -math.inf  # of the own clock, against monotonic time
        self._is_behind = False
        self._edges: dict[str, int] = {}  # sessions of those that were online
        self._confirmed_s = -math.inf  # when a slow exchange agreed with the own time last
        self._wanted_epoch = 0
        self._asked_s: float | None = None  # of the request that is open
        # The last reply, with its epoch, where it contradicts those before.
        self._suspect: tuple[int, _Exchange] | None = None
        self._interval_s = REQUEST_EVERY_S[0]
        self._request_at_s = math.inf  # infinite without a broker
        self._keep_at_s = -math.inf
        self._skew_s = 0.0

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.TIME_REPLY, self.site, self.node)]

    def deadline_s(self) -> float | None:
        due_s = min(self._request_at_s, self._keep_at_s)
        return due_s if math.isfinite(due_s) else None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Connected():
                self._request_often_from(now.monotonic_s)
            case Disconnected():
                self._request_at_s = math.inf
            case Received(Topic(_, Kind.STATUS, node), Status("edge", session, "online")):
                self._take_edge(node, session, now)
            case Received(Topic(_, Kind.TIME_REPLY, self.node), TimeReply() as reply):
                self._take_reply(reply, now)
        effects = self._follow_own_clock(now)
        if now.monotonic_s >= self._keep_at_s:
            self._keep_at_s = now.monotonic_s + KEEP_EVERY_S
            effects.append(KeepTime(self.read(now)))
        if now.monotonic_s >= self._request_at_s:
            self._request_at_s = now.monotonic_s + self._interval_s
            self._interval_s = min(2 * self._interval_s, REQUEST_EVERY_S[1])
            # Monotonic, so that no step of the wall clock changes the round trip.
            self._asked_s = now.monotonic_s
            request = TimeRequest(
                now.monotonic_s,
                max(self._wanted_epoch, self._estimate.epoch),
                self._is_known(now.monotonic_s),
            )
            effects.append(Publish(Topic(self.site, Kind.TIME_REQUEST, self.node), request))
        return effects

    def read(self, now: Now) -> SiteTime:
        """Site time; without a fresh exchange the own time. Safe in any thread."""
        estimate = self._estimate
        best = estimate.find_best(now.monotonic_s)
        time_s = self._own_s(now) if best is None else now.monotonic_s + best.offset_s
        return SiteTime(estimate.epoch, time_s)

    def time_s(self, now: Now) -> float:
        """Seconds of site time. Safe in any thread."""
        return self.read(now).time_s

    @property
    def gauges(self) -> dict[str, float]:
        """By how much the own wall clock was ahead of site time at the last exchange."""
        return {"clock_skew_s": self._skew_s} if self._estimate.exchanges else {}

    def _is_known(self, monotonic_s: float) -> bool:
        """Whether this time is the lead's, as far as that can be known."""
        has_exchange = self._estimate.find_best(monotonic_s) is not None
        return has_exchange or monotonic_s - self._confirmed_s <= KEEP_S

    def _request_often_from(self, time_s: float) -> None:
        self._request_at_s, self._interval_s = time_s, REQUEST_EVERY_S[0]

    def _take_edge(self, node: str, session: int, now: Now) -> None:
        """An edge is online; where it is a new process, it may be another lead. Nodes repeat their
        status."""
        if self._edges.get(node) == session:
            return
        if len(self._edges) >= MAX_EDGES:
            self._edges.clear()
        self._edges[node] = session
        if math.isfinite(self._request_at_s):
            self._request_often_from(now.monotonic_s)

    def _own_s(self, now: Now) -> float:
        """The wall clock, or where that was set back, what it would be."""
        time_s, at_s = self._own
        passed_s = time_s + now.monotonic_s - at_s
        return now.wall_s if now.wall_s >= passed_s - SET_BACK_S else passed_s + self._unwritten_s

    def _follow_own_clock(self, now: Now) -> list[Effect]:
        ahead_s = now.wall_s - now.monotonic_s
        is_step = abs(ahead_s - self._ahead_s) > STEP_S
        if not is_step and now.monotonic_s < self._own[1] + FOLLOW_EVERY_S:
            return []
        self._ahead_s = ahead_s
        own_s = self.time_s(now)
        was_behind, self._is_behind = self._is_behind, now.wall_s < own_s - SET_BACK_S
        has_exchange = self._estimate.find_best(now.monotonic_s) is not None
        self._own, self._unwritten_s = (own_s, now.monotonic_s), 0.0
        if not self._is_behind or was_behind or has_exchange:
            return []
        self.counts["clock_set_back"] += 1
        text = "the clock is %.1f s behind the time before: the time runs on from there"
        return [Log("warning", text, (own_s - now.wall_s,))]

    def _take_reply(self, reply: TimeReply, now: Now) -> None:
        round_trip_s = now.monotonic_s - reply.echo_s
        if reply.echo_s != self._asked_s or not 0 <= round_trip_s <= MAX_SLOW_S:
            return  # late, or the reply to a request of another process, or forged
        self._asked_s = None
        epoch, exchanges, _ = self._estimate
        offset_s = reply.replied_at_s + round_trip_s / 2 - now.monotonic_s
        if round_trip_s > MAX_ROUND_TRIP_S:
            error_s = abs(now.monotonic_s + offset_s - self.time_s(now))
            agrees = reply.epoch == epoch and error_s <= round_trip_s / 2
            self._confirmed_s = now.monotonic_s if agrees else -math.inf
            return
        exchange = _Exchange(now.monotonic_s, round_trip_s, offset_s)
        best = self._estimate.find_best(now.monotonic_s)
        before, self._suspect = self._suspect, None
        if reply.epoch != epoch or any(_contradict(exchange, other) for other in exchanges):
            self._request_often_from(now.monotonic_s + REQUEST_EVERY_S[0])
            if reply.epoch < epoch:
                return
            if before is None or before[0] != reply.epoch or _contradict(exchange, before[1]):
                self._suspect = reply.epoch, exchange  # a single reply may be forged: ask again
                return
            is_behind = best is not None and offset_s < best.offset_s - SET_BACK_S
            if reply.epoch == epoch and is_behind:
                self._wanted_epoch = epoch + 1
                return
            exchanges = (before[1],)  # the lead's clock was set: earlier replies are wrong now
        self._estimate = _Estimate.of(reply.epoch, (*exchanges, exchange)[-KEEP:])
        self._skew_s = now.wall_s - self.time_s(now)


class OnSiteTime(WrappedMachine):
    """A machine whose wall clock is the site's, so that its time stamps fit those of others."""

    def __init__(self, machine: Machine, clock: SiteClock) -> None:
        super().__init__(machine)
        self._clock = clock

    def handle(self, event: Event, now: Now) -> list[Effect]:
        return super().handle(event, Now(now.monotonic_s, self._clock.time_s(now)))


def _contradict(a: _Exchange, b: _Exchange) -> bool:
    """Whether no offset explains both exchanges: each is right to half of its round trip."""
    error_s = (a.round_trip_s + b.round_trip_s) / 2 + DRIFT * abs(a.at_s - b.at_s) + 1e-3
    return abs(a.offset_s - b.offset_s) > error_s
