"""Drives a roll-out: publishes a bundle, waits for the nodes, and names the first sample.

    state        signal     next
    LISTENING    BEGIN      STAGING     the nodes of the site are known; parts and order are sent
    STAGING      READY      CHANGING    every node that is online has the bundle ready
    STAGING      FAIL       FAILED      a node cannot use it, or is not ready in time: all stay
    CHANGING     READY      DONE        every node that is online uses it
    CHANGING     FAIL       FAILED      a node does not report that it does: it is named
    LISTENING    FAIL       FAILED      there is nobody to change

All nodes change at one sample, which is a little later than the newest one, so that each knows it
before. A node that is away finds order and parts at the broker when it is back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum, auto

import msgspec

from ddnn.core.site_time import find_tick
from ddnn.machines.membership import Membership
from ddnn.machines.states import advance
from ddnn.protocol.machine import Connected, Disconnected, Effect, Event, Now, Publish, Received
from ddnn.protocol.messages import Answer, Status
from ddnn.protocol.rollout_messages import BundleOrder, BundlePart, BundleState
from ddnn.protocol.topics import Kind, Topic, topic_filter

MAX_OTHERS = 1000  # nodes
LISTEN_S = 2.0  # in which what the broker retains arrives
RETURN_S = 6.0  # in which nodes are back after the broker has started again
PARTS_AT_ONCE = 8
PART_EVERY_S = 0.05
LEAD_S = 2.0  # from the order to the first sample of the bundle
CONFIRM_S = 20.0  # in which the nodes report that they use it


class State(Enum):
    """The states of a roll-out."""

    LISTENING = auto()
    STAGING = auto()
    CHANGING = auto()
    DONE = auto()
    FAILED = auto()


class Signal(Enum):
    """What moves a roll-out from one state to the next."""

    BEGIN = auto()
    READY = auto()
    FAIL = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.LISTENING, Signal.BEGIN): State.STAGING,
    (State.STAGING, Signal.READY): State.CHANGING,
    (State.STAGING, Signal.FAIL): State.FAILED,
    (State.CHANGING, Signal.READY): State.DONE,
    (State.CHANGING, Signal.FAIL): State.FAILED,
    (State.LISTENING, Signal.FAIL): State.FAILED,
}


class _NewestSample:
    """The newest sample that the lead edge has answered, and how samples advance."""

    def __init__(self) -> None:
        self._seen: tuple[int, float, float] | None = None  # sample, ticks per s, when it came

    @property
    def is_known(self) -> bool:
        return self._seen is not None

    def note(self, answer: Answer, now: Now) -> None:
        tick_hz = find_tick(answer.sample) / max(answer.captured_at_s, 1.0)
        if self._seen is None or answer.sample > self._seen[0]:
            self._seen = answer.sample, tick_hz, now.monotonic_s

    def choose_next(self, now: Now) -> int:
        """A sample that is captured in LEAD_S; 0 where none is captured."""
        if self._seen is None:
            return 0
        sample, tick_hz, seen_s = self._seen
        return sample + math.ceil((now.monotonic_s - seen_s + LEAD_S) * tick_hz)


class Deployer:
    """One roll-out at one site."""

    def __init__(
        self,
        site: str,
        order: BundleOrder,
        parts: Sequence[bytes],
        nodes: Sequence[str],
        lead: str,
        *,
        wait_s: float,
    ) -> None:
        """order: without a first sample. parts: of the archive. nodes: those that run the bundle,
        `lead` the edge that decides; clouds and pages of other names join them. wait_s: for the
        nodes to be ready."""
        self._site, self.order, self._parts = site, order, list(parts)
        self._lead, self._wait_s = lead, wait_s
        self.nodes = tuple(nodes)
        self.state = State.LISTENING
        self.reason = ""  # why it failed
        self.is_refused = False  # a node cannot use the bundle
        self.since: int | None = None
        self.states: dict[str, BundleState] = {}
        self.before = ""  # the bundle that was in use
        self.counts: dict[str, int] = {}
        self._membership = Membership(nodes)
        self._others: dict[str, Status] = {}  # of nodes that the bundle does not name
        self._connected_s: float | None = None
        self._is_reconnected = False
        self._next_part = 0
        self._due_s: float | None = None
        self._until_s = math.inf
        self._newest = _NewestSample()

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    @property
    def is_over(self) -> bool:
        return self.state in (State.DONE, State.FAILED)

    @property
    def online(self) -> list[str]:
        return [node for node in self.nodes if node in self._membership.live]

    @property
    def away(self) -> list[str]:
        """Nodes that change when they are back."""
        return [node for node in self.nodes if node not in self._membership.live]

    def describe(self, node: str) -> str:
        """How far a node is."""
        if node not in self._membership.live:
            return "away"
        state = self.states.get(node)
        if state is None:
            return "silent"
        if state.ordered != self.order.bundle and state.in_use != self.order.bundle:
            return "waiting"
        if state.phase == "fetching":
            return f"fetching {state.parts} of {len(self._parts)}"
        return state.phase

    def subscriptions(self) -> list[str]:
        kinds = (Kind.STATUS, Kind.BUNDLE_STATE, Kind.ANSWER)
        return [topic_filter(kind, self._site) for kind in kinds]

    def deadline_s(self) -> float | None:
        return None if self.is_over else self._due_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Connected():
                self._connected_s = now.monotonic_s
                if self.state is State.LISTENING:
                    self._due_s = now.monotonic_s + LISTEN_S
                elif not self.is_over:
                    self._next_part = 0  # the broker may have lost what it had
                    return [self._publish_order(now)]
            case Disconnected():
                self._membership = Membership(self.nodes)
                self._connected_s, self._is_reconnected = None, self.state is not State.LISTENING
            case Received(Topic(self._site, Kind.STATUS, node), Status() as status):
                self._take_status(node, status)
            case Received(Topic(self._site, Kind.BUNDLE_STATE, node), BundleState() as state):
                self._take_state(node, state)
            case Received(Topic(self._site, Kind.ANSWER, self._lead), Answer() as answer):
                self._newest.note(answer, now)
        if self._due_s is None or self.is_over:
            return []
        return self._advance(now)

    def _take_status(self, node: str, status: Status) -> None:
        if node in self.nodes:
            self._membership.take_status(node, status)
        elif node in self._others or len(self._others) < MAX_OTHERS:
            self._others[node] = status
            self._admit(node)

    def _take_state(self, node: str, state: BundleState) -> None:
        if node in self.nodes or node in self.states or len(self.states) < MAX_OTHERS:
            self.states[node] = state
            self._admit(node)

    def _admit(self, node: str) -> None:
        """Count on further clouds and pages that are online: they change, whatever their names."""
        status = self._others.get(node)
        if status is None or node in self.nodes or node not in self.states:
            return
        if status.role in ("cloud", "store") and status.state == "online":
            self.nodes = (*self.nodes, node)
            self._membership.admit(node)
            self._membership.take_status(node, self._others.pop(node))

    def cancel(self, now: Now) -> list[Effect]:
        """The user wants no roll-out any more: all nodes stay, unless they are about to change."""
        match self.state:
            case State.LISTENING:
                return self._fail("cancelled")
            case State.STAGING:
                return self._give_up("cancelled", now)
            case State.CHANGING:
                return self._fail("interrupted while the nodes change, which they do all the same")
        return []

    def make_return(self) -> Deployer:
        """A roll-out of the bundle before, which the nodes have on their disks."""
        order = self._order_before()
        return Deployer(self._site, order, [], self.nodes, self._lead, wait_s=self._wait_s)

    # ---------------------------------------------------------------------- states

    def _advance(self, now: Now) -> list[Effect]:
        if self.state is State.LISTENING:
            return self._begin(now) if self._has_listened(now) else []
        effects = self._publish_parts(now)
        if self.state is State.STAGING:
            return [*effects, *self._check_staged(now)]
        return [*effects, *self._check_changed(now)]

    def _has_listened(self, now: Now) -> bool:
        """Whether the connection has lasted so long that what the broker retains has arrived, and,
        after a broken one, that the nodes are back."""
        if self._connected_s is None:
            return False
        listen_s = RETURN_S if self._is_reconnected else LISTEN_S
        return now.monotonic_s >= self._connected_s + listen_s

    def _name_unheard(self) -> str:
        connected = self._connected_s is not None
        return self._lead if connected else "there is no connection to the broker"

    def _begin(self, now: Now) -> list[Effect]:
        if self._lead not in self._membership.live:
            return self._fail(f"the lead edge {self._lead} is not online at site {self._site}")
        silent = [node for node in self.online if node not in self.states]
        if silent:
            return self._fail(
                f"{', '.join(silent)} know no roll-outs, or this user may not read their state"
            )
        in_use = [self.states[node].in_use for node in self.online]
        self.before = max(set(in_use), key=in_use.count)
        # What an earlier order of this bundle has failed for may be mended.
        bundle = self.order.bundle
        stale = [n for n, s in self.states.items() if s.phase == "failed" and s.ordered == bundle]
        for node in stale:
            del self.states[node]
        self.move(Signal.BEGIN)
        self._until_s = now.monotonic_s + self._wait_s
        return [self._publish_order(now), *self._publish_parts(now)]

    def _publish_parts(self, now: Now) -> list[Effect]:
        """Publish the next parts, a few at a time, so that live messages pass between them."""
        if self._due_s is not None and now.monotonic_s < self._due_s:
            return []
        first, end = self._next_part, min(self._next_part + PARTS_AT_ONCE, len(self._parts))
        self._next_part = end
        self._due_s = now.monotonic_s + PART_EVERY_S
        bundle = self.order.bundle
        return [
            Publish(
                Topic(self._site, Kind.BUNDLE_PART, str(number)),
                BundlePart(1, number, bundle, self._parts[number]),
            )
            for number in range(first, end)
        ]

    def _publish_order(self, now: Now) -> Publish:
        order = msgspec.structs.replace(self.order, since=self.since, given_at_s=now.wall_s)
        return Publish(Topic(self._site, Kind.BUNDLE_ORDER), order)

    def _check_staged(self, now: Now) -> list[Effect]:
        bundle, states = self.order.bundle, self.states
        online = set(self.online)
        own = {n: s for n, s in states.items() if s.ordered == bundle and n in online}
        failed = {node: s.reason for node, s in own.items() if s.phase == "failed"}
        if failed:
            self.is_refused = True
            reasons = "; ".join(f"{node}: {reason}" for node, reason in failed.items())
            return self._give_up(reasons, now)
        ready = {n for n, s in own.items() if s.phase == "staged" or s.in_use == bundle}
        waiting = [node for node in self.online if node not in ready]
        if self._lead not in self._membership.live or waiting or not self._has_listened(now):
            if now.monotonic_s < self._until_s:
                return []
            names = ", ".join(waiting) or self._name_unheard()
            return self._give_up(f"not ready in {self._wait_s:g} s: {names}", now)
        if (
            not self._newest.is_known
            and now.monotonic_s < (self._connected_s or 0.0) + 2 * LISTEN_S
        ):
            return []  # an answer may come
        self.since = self._newest.choose_next(now)
        self.move(Signal.READY)
        self._until_s = now.monotonic_s + LEAD_S + CONFIRM_S
        return [self._publish_order(now)]

    def _check_changed(self, now: Now) -> list[Effect]:
        bundle = self.order.bundle
        left = [n for n in self.online if n not in self.states or self.states[n].in_use != bundle]
        if not left and self._lead in self._membership.live and self._has_listened(now):
            self.move(Signal.READY)
        elif now.monotonic_s >= self._until_s:
            names = ", ".join(left) or self._name_unheard()
            return self._fail(f"not reported to use it: {names}")
        return []

    def _give_up(self, reason: str, now: Now) -> list[Effect]:
        """All nodes stay with what they use."""
        order = self._order_before(now.wall_s)
        return [Publish(Topic(self._site, Kind.BUNDLE_ORDER), order), *self._fail(reason)]

    def _order_before(self, given_at_s: float = 0.0) -> BundleOrder:
        """An order without an archive: the nodes have the bundle before on their disks."""
        return BundleOrder(self.before, "0" * 64, 0, None, given_at_s)

    def _fail(self, reason: str) -> list[Effect]:
        self.reason = reason
        self.move(Signal.FAIL)
        return []

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, "the roll-out")
