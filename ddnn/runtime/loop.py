"""The loop: a thread that owns a machine, gives it events, and has a host perform its effects.

NEW ──start──> DISCONNECTED <──link──> CONNECTED ──close──> STOPPED
                    └────── the machine raised ──> FAILED
"""

from __future__ import annotations

import logging
import math
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ddnn.errors import DdnnError, LinkError, LocalProtocolError, RemoteProtocolError
from ddnn.protocol.commands import CommandRefusedError
from ddnn.protocol.machine import (
    Captured,
    Computed,
    Connected,
    Disconnected,
    Event,
    Forgotten,
    Machine,
    Now,
    PlanRead,
    Publish,
    Returned,
    Saved,
    Tick,
)
from ddnn.protocol.messages import Stats, Status
from ddnn.protocol.node_messages import NameClaim
from ddnn.protocol.topics import PROBE, Kind, Topic
from ddnn.runtime.budget import SenderBudget
from ddnn.runtime.effects import perform
from ddnn.runtime.guard import Guard
from ddnn.runtime.host import NodeHost, Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.packets import pack, unpack
from ddnn.runtime.process import measure_resident_bytes
from ddnn.runtime.refusals import RefusalLog
from ddnn.runtime.registration import Registration
from ddnn.runtime.sections import IDLE_RUN_S, Ready
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp, Refused, Transport

log = logging.getLogger(__name__)

QUEUE_LIMIT = 20_000  # messages that wait for the machine; newer ones are refused and counted
IDLE_S = 1.0  # the longest wait of the loop
AT_ONCE = 64  # events handled before the loop serves the network again


class State(Enum):
    """The states of a loop."""

    NEW = "new"
    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    STOPPED = "stopped"
    FAILED = "failed"


TRANSITIONS = {
    State.NEW: {State.DISCONNECTED},
    State.DISCONNECTED: {State.DISCONNECTED, State.CONNECTED, State.STOPPED, State.FAILED},
    State.CONNECTED: {State.DISCONNECTED, State.CONNECTED, State.STOPPED, State.FAILED},
    State.STOPPED: set(),
    State.FAILED: set(),
}


@dataclass(frozen=True, slots=True)
class LoopState:
    """The state, since when (monotonic), and why it is not CONNECTED."""

    state: State
    since_s: float
    reason: str = ""

    @property
    def connected(self) -> bool:
        return self.state is State.CONNECTED


class Frames(Protocol):
    """A source whose frames are available when they are due; the machine's thread reads them."""

    def due_s(self) -> float:
        """Monotonic time of the next frame."""
        ...

    def take(self) -> Captured: ...


class _Stop:
    pass


Inbox = LinkEvent | Captured | Computed | PlanRead | Returned | Saved | Publish | Ready | _Stop


class Loop:
    """Runs a machine against a transport until `close`.

    Only the owner thread uses the machine and the transport; other threads put their events
    (frames, results of slow sections, confirmations of the store) into its inbox.
    `guard` signs and verifies commands; None: they are obeyed without a signature.
    `announcements` are retained messages (topic, payload) that are published at every connect.
    """

    def __init__(
        self,
        identity: Identity,
        machine: Machine,
        transport: Transport,
        resources: Resources | None = None,
        *,
        guard: Guard | None = None,
        announcements: Sequence[tuple[str, bytes]] = (),
        stats_every_s: float = 5.0,
    ) -> None:
        self.identity, self.machine, self.transport = identity, machine, transport
        self.failed: BaseException | None = None
        self._host = NodeHost(
            transport,
            resources or Resources(),
            self._put,
            guard,
            lambda bundle: self._registration.use_bundle(bundle),
        )
        self._guard, self._stats_every_s = guard, stats_every_s
        self._inbox: deque[Inbox] = deque()
        self._budget = SenderBudget()
        self._thread = threading.Thread(target=self._run, name="machine", daemon=True)
        self._started_s = time.monotonic()
        self.link = LoopState(State.NEW, self._started_s, "not connected yet")
        self._registration = Registration(
            identity, transport, announcements, self.counts, self._started_s
        )
        self._refusals = RefusalLog(self.counts)
        self._frames: Frames | None = None

    # ------------------------------------------------------------- any thread

    @property
    def counts(self) -> Counter[str]:
        """The counts of the runtime: messages sent, and those dropped before the machine."""
        return self._host.counts

    @property
    def inferred_s(self) -> float | None:
        """Monotonic time of the last inference that succeeded."""
        return self._host.sections.inferred_s

    @property
    def has_sections(self) -> bool:
        """Whether the node holds a section that runs on its example. Safe in any thread."""
        return self._host.sections.can_prove

    def start(self) -> None:
        self._thread.start()

    def take_frame(self, frame: Captured) -> None:
        """Give the machine a frame of this node's camera."""
        self._put(frame)

    def take_plan(self, plan: PlanRead) -> None:
        """Give the machine a plan that was made while this node runs."""
        self._put(plan)

    def publish(self, message: Publish) -> None:
        """Publish a message that the machine did not make; LinkError without a broker."""
        if not self.link.connected:
            raise LinkError(f"no connection to the broker: {self.link.reason}; try again later")
        self._put(message)

    def attach(self, frames: Frames) -> None:
        """Read frames from `frames`, each when it is due."""
        self._frames = frames
        self.transport.wake()

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop the machine, publish the status `stopped`, disconnect."""
        self._put(_Stop())
        self._thread.join(timeout_s)
        self.transport.close(self._registration.make_last_words())
        self._host.sections.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the machine's thread; True once it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, item: Inbox) -> None:
        self._inbox.append(item)
        self.transport.wake()

    # -------------------------------------------------------- the owner thread

    def _run(self) -> None:
        self._enter(State.DISCONNECTED, self.link.reason)
        try:
            self.transport.start(self._take, self._registration.make_will)
            self._host.sections.find_slow_sections()
            self._serve()
            self._enter(State.STOPPED, "stopped")
        except BaseException as error:  # reported by the app, which ends the process
            self.failed = error
            self._enter(State.FAILED, str(error))
            if isinstance(error, DdnnError):  # which says what happened and what to do
                log.error("%s", error)
            else:
                log.exception("the machine failed")

    def _enter(self, state: State, reason: str = "") -> None:
        before = self.link
        if state not in TRANSITIONS[before.state]:
            raise LocalProtocolError(f"a loop that is {before.state.value} cannot be {state.value}")
        since_s = before.since_s if state is before.state else time.monotonic()
        self.link = LoopState(state, since_s, reason)

    def _take(self, event: LinkEvent) -> None:
        """The transport's sink."""
        if isinstance(event, Arrived):
            if not self._budget.admit(event.topic, time.monotonic()):
                self.counts["over_budget"] += 1
                return
            if len(self._inbox) > QUEUE_LIMIT:
                self.counts["queue_full"] += 1
                return
        self._inbox.append(event)

    def _serve(self) -> None:
        stats_due_s = time.monotonic() + self._stats_every_s * spread(
            f"{self.identity.site}/{self.identity.node}"
        )
        idle_run_s = min(stats_due_s, time.monotonic() + IDLE_RUN_S)
        deadline_s = self.machine.deadline_s()
        while True:
            frame_due_s = math.inf if self._frames is None else self._frames.due_s()
            until_s = min(stats_due_s, idle_run_s, frame_due_s)
            until_s = until_s if deadline_s is None else min(deadline_s, until_s)
            if self._registration.deadline_s is not None:
                until_s = min(until_s, self._registration.deadline_s)
            idle_s = 0.0 if self._inbox else min(max(until_s - time.monotonic(), 0.0), IDLE_S)
            self.transport.wait(idle_s)
            if self._frames is not None and frame_due_s <= time.monotonic():
                self._handle(self._frames.take())
            for _ in range(min(len(self._inbox), AT_ONCE)):
                item = self._inbox.popleft()
                if isinstance(item, _Stop):
                    return
                event = self._make_event(item)
                if event is not None:
                    self._handle(event)
            now_s = time.monotonic()
            if self._registration.tick(now_s):
                self._handle(self._announce())
            deadline_s = self.machine.deadline_s()
            if deadline_s is not None and deadline_s <= now_s:
                self._handle(Tick())
                deadline_s = self.machine.deadline_s()
            if now_s >= idle_run_s:
                idle_run_s = now_s + min(self._stats_every_s, IDLE_RUN_S)
                self._host.sections.run_idle_sections(now_s)
            if now_s >= stats_due_s:
                stats_due_s = now_s + self._stats_every_s
                self._publish_stats()

    def _make_event(self, item: Inbox) -> Event | None:
        """Convert an item of the inbox to an event; None where the machine gets none."""
        match item:
            case Arrived(topic, payload):
                return self._read(topic, payload)
            case LinkUp(session):
                if self._registration.connect(session):
                    return self._announce()
                reason = "another process may have this node's name"
                self._enter(State.DISCONNECTED, reason)
            case LinkDown(reason):
                self._registration.disconnect()
                if self.link.connected:
                    log.warning("disconnected: %s", reason)
                self._enter(State.DISCONNECTED, reason)
                return Disconnected()
            case Refused():
                self._refusals.note(item)
            case Publish():
                self._host.publish(item)
            case Ready():
                return self._host.sections.add(item)
            case Captured() | Computed() | Returned() | PlanRead() | Saved():
                return item
        return None

    def _announce(self) -> Connected:
        """Subscribe and publish this node's status: it has the name."""
        self._enter(State.CONNECTED)
        self.transport.subscribe(self.machine.subscriptions())
        self._registration.announce()
        return Connected()

    def _read(self, topic: str, payload: bytes) -> Event | None:
        if payload == PROBE:
            return None
        try:
            received = unpack(topic, payload, self._guard)
        except CommandRefusedError as error:
            self.counts[error.count] += 1
            log.warning("refused: %s", error)
            return None
        except RemoteProtocolError as error:
            self.counts["malformed"] += 1
            log.debug("dropped: %s", error)
            return None
        if isinstance(received, Forgotten):
            self._registration.take_forgotten(received)
            return received
        message = received.message
        if received.topic.node == self.identity.node and isinstance(message, NameClaim):
            return self._announce() if self._registration.take_claim(message) else None
        if received.topic.node == self.identity.node and isinstance(message, Status):
            self._registration.take_status(message)
        return received if self._registration.has_name else None

    def _handle(self, event: Event) -> None:
        """Handle an event, and then at once the results of fast sections that follow from it."""
        events: deque[Event] = deque([event])
        while events:
            now = Now(time.monotonic(), time.time())
            for effect in self.machine.handle(events.popleft(), now):
                perform(effect, self._host)
            events.extend(self._host.results)
            self._host.results.clear()

    def _publish_stats(self) -> None:
        stats = Stats(
            self.identity.role,
            time.monotonic() - self._started_s,
            measure_resident_bytes(),
            {**self.machine.counts, **self.counts},
            {**self.machine.gauges, "queue": float(len(self._inbox)), **self._host.gauges},
        )
        topic = Topic(self.identity.site, Kind.STATS, self.identity.node)
        self.transport.publish(*pack(topic, stats))
        self._registration.repeat(time.monotonic())


def spread(name: str) -> float:
    """A number from 0 to 1 for a name: nodes that start together must not send their statistics at
    the same moment, which would delay what is live."""
    return zlib.crc32(name.encode()) / 2**32
