"""One thread owns one machine: the thin shell around sockets, sections, files and the clock."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

from ddnn.core.section import Arrays, Section
from ddnn.errors import LinkError, RemoteProtocolError
from ddnn.protocol import topics
from ddnn.protocol.codec import decode, encode, publish_bytes
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Forget,
    Keep,
    Load,
    Loaded,
    Log,
    Machine,
    Now,
    Publish,
    Received,
    Save,
    Saved,
    Tick,
    Unload,
)
from ddnn.protocol.messages import Answer, RoleName, Stats, Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.process import resident_bytes
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp, Transport

log = logging.getLogger(__name__)

QUEUE_LIMIT = 20_000  # messages waiting for the machine; newer ones are refused and counted
INLINE_S = 0.002  # a section faster than this runs in the machine's thread: a hand-over costs more
IDLE_S = 1.0  # the longest the loop sleeps
PROVE_S = 10.0  # after so long without work a section runs on its example: does it still work?
AT_ONCE = 64  # events handled before the network is looked after again

Role = RoleName


class Frames(Protocol):
    """A camera that has its frame at hand when it is due: read in the machine's own thread."""

    def due_s(self) -> float:
        """Monotonic time of the next frame."""
        ...

    def take(self) -> Captured: ...


class AnswerLog(Protocol):
    """Where answers are kept until they are confirmed."""

    def keep(self, answer: Answer) -> None: ...
    def forget(self, samples: Sequence[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, as it announces itself."""

    site: str
    node: str
    role: Role
    bundle: str
    version: str


class _Stop:
    pass


def be_nice() -> None:
    """This thread gives way to the others of the machine (Linux counts niceness by thread)."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A section that was loaded in another thread; None where that failed."""

    name: str
    section: Section | None
    slow: bool = False


Inbox = LinkEvent | Captured | Computed | Saved | Publish | _Ready | _Stop


@dataclass(frozen=True, slots=True)
class LinkState:
    """Whether the broker is there, since when (monotonic), and why not."""

    connected: bool
    since_s: float
    reason: str = ""


class Loop:
    """Runs a machine against a transport until `close`.

    The owner thread alone touches the machine and drives the transport; what other threads have
    for it (frames, results of slow sections, what is stored) is put into its inbox.
    `save` takes the answers of a Save effect and a function to call once they are stored.
    `load` makes the section of a Load effect, in another thread.
    `report` gives counts and gauges of what else runs in this process, for its statistics;
    `announce` retained messages that are published at every connect.
    """

    def __init__(
        self,
        identity: Identity,
        machine: Machine,
        transport: Transport,
        sections: Mapping[str, Section] | None = None,
        *,
        load: Callable[[str], Section] | None = None,
        answer_log: AnswerLog | None = None,
        save: Callable[[Save, Callable[[Saved], None]], None] | None = None,
        observe: Callable[[Event], None] | None = None,
        report: Callable[[], tuple[Mapping[str, int], Mapping[str, float]]] | None = None,
        announce: Sequence[tuple[str, bytes]] = (),
        stats_every_s: float = 5.0,
    ) -> None:
        self.identity, self.machine, self.transport = identity, machine, transport
        self.counts: dict[str, int] = {}
        self._sections = dict(sections or {})
        self._slow: set[str] = set()
        self._lent: set[str] = set()  # those loaded for others
        self._load = load
        self._answer_log, self._save, self._observe = answer_log, save, observe
        self._report, self._announce = report, announce
        self._stats_every_s = stats_every_s
        self._inbox: deque[Inbox] = deque()
        # A thread for slow sections of one's own, one for what is lent to others.
        self._pools: dict[bool, ThreadPoolExecutor] = {}
        self._thread = threading.Thread(target=self._run, name="machine", daemon=True)
        self._started_s = time.monotonic()
        self.link = LinkState(False, self._started_s, "not connected yet")
        self.inferred_s: float | None = None  # monotonic time of the last inference that succeeded
        self.failed: BaseException | None = None
        self._frames: Frames | None = None

    # ------------------------------------------------------------- any thread

    def start(self) -> None:
        self._thread.start()

    def captured(self, frame: Captured) -> None:
        """A frame of this node's camera."""
        self._put(frame)

    def publish(self, message: Publish) -> None:
        """From any thread: send a message besides the machine's. LinkError without a broker."""
        if not self.link.connected:
            raise LinkError(f"no connection to the broker: {self.link.reason}; try again later")
        self._put(message)

    def attach(self, frames: Frames) -> None:
        """From any thread: take frames from here, each when it is due."""
        self._frames = frames
        self.transport.wake()

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop the machine, say so to the others, disconnect."""
        self._put(_Stop())
        self._thread.join(timeout_s)
        self.transport.close(self._status("stopped", self._session))
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def join(self, timeout_s: float) -> bool:
        """Wait for the machine's thread; True once it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _from_link(self, event: LinkEvent) -> None:
        if isinstance(event, Arrived) and len(self._inbox) > QUEUE_LIMIT:
            self._count("queue_full")
            return
        self._inbox.append(event)

    def _put(self, item: Inbox) -> None:
        """From any thread."""
        self._inbox.append(item)
        self.transport.wake()

    _session = 0

    def _status(
        self, state: Literal["online", "stopped", "lost"], session: int
    ) -> tuple[str, bytes]:
        me = self.identity
        status = Status(me.role, session, state, me.bundle, me.version)
        return str(Topic(me.site, Kind.STATUS, me.node)), encode(status)

    def _will(self, session: int) -> tuple[str, bytes]:
        return self._status("lost", session)

    # -------------------------------------------------------- the owner thread

    def _run(self) -> None:
        try:
            self.transport.start(self._from_link, self._will)
            self._warm_up()
            self._serve()
        except BaseException as error:  # reported by the app, which ends the process
            self.failed = error
            log.exception("the machine failed")

    def _warm_up(self) -> None:
        for name, section in self._sections.items():
            if self._is_slow(section):
                self._slow.add(name)

    def _is_slow(self, section: Section) -> bool:
        """Measured once warm: fast sections run inline."""
        inputs: Arrays = getattr(section, "example", dict)()
        took_s = 0.0
        for _ in range(3 if inputs else 0):
            started_s = time.perf_counter()
            section(inputs)
            self.inferred_s = time.monotonic()
            took_s = time.perf_counter() - started_s
        return took_s > INLINE_S

    def _pool(self, lent: bool = False) -> ThreadPoolExecutor:
        if lent not in self._pools:
            name = "lent" if lent else "section"
            self._pools[lent] = ThreadPoolExecutor(1, name, be_nice if lent else None)
        return self._pools[lent]

    def _serve(self) -> None:
        stats_due_s = time.monotonic() + self._stats_every_s
        while True:
            deadline_s = self.machine.deadline_s()
            until_s = stats_due_s if deadline_s is None else min(deadline_s, stats_due_s)
            if self._frames is not None:
                until_s = min(until_s, self._frames.due_s())
            idle_s = 0.0 if self._inbox else min(max(until_s - time.monotonic(), 0.0), IDLE_S)
            self.transport.wait(idle_s)
            if self._frames is not None and self._frames.due_s() <= time.monotonic():
                self._handle(self._frames.take())
            for _ in range(min(len(self._inbox), AT_ONCE)):
                item = self._inbox.popleft()
                if isinstance(item, _Stop):
                    return
                event = self._event(item)
                if event is not None:
                    self._handle(event)
            now_s = time.monotonic()
            deadline_s = self.machine.deadline_s()
            if deadline_s is not None and deadline_s <= now_s:
                self._handle(Tick())
            if now_s >= stats_due_s:
                stats_due_s = now_s + self._stats_every_s
                self._prove(now_s)
                self._publish_stats()

    def _event(self, item: Inbox | None) -> Event | None:
        match item:
            case Arrived(topic, payload):
                try:
                    parsed = topics.parse(topic)
                    message = decode(parsed.kind, payload)
                except RemoteProtocolError as error:
                    self._count("malformed")
                    log.debug("dropped: %s", error)
                    return None
                if isinstance(message, Status) and parsed.node == self.identity.node:
                    self._correct(message)
                qos = parsed.kind.value.qos
                return Received(parsed, message, publish_bytes(topic, len(payload), qos))
            case LinkUp(session):
                self._session = session
                self.link = LinkState(True, time.monotonic())
                self.transport.subscribe(self.machine.subscriptions())
                self.transport.publish(*self._status("online", session), 1, True)
                for topic, payload in self._announce:
                    self.transport.publish(topic, payload, 1, True)
                return Connected()
            case LinkDown(reason):
                if self.link.connected:
                    log.warning("disconnected: %s", reason)
                    self.link = LinkState(False, time.monotonic(), reason)
                else:
                    self.link = LinkState(False, self.link.since_s, reason)
                return Disconnected()
            case Publish():
                self._perform(item)
            case Captured() | Computed() | Saved():
                return item
            case _Ready(name, section, slow):
                if section is not None:
                    self._sections[name] = section
                    self._lent.add(name)
                    (self._slow.add if slow else self._slow.discard)(name)
                return Loaded(name, section is not None)
        return None

    def _correct(self, seen: Status) -> None:
        """An old connection's Will came after our birth: the retained status must not lie."""
        if self.link.connected and seen.state != "online" and seen.session != self._session:
            self.transport.publish(*self._status("online", self._session), 1, True)

    def _handle(self, event: Event) -> None:
        events: deque[Event] = deque([event])
        while events:
            current = events.popleft()
            if self._observe is not None:
                self._observe(current)
            now = Now(time.monotonic(), time.time())
            for effect in self.machine.handle(current, now):
                done = self._perform(effect)
                if done is not None:
                    events.append(done)

    def _perform(self, effect: Effect) -> Event | None:
        match effect:
            case Publish(topic, message):
                rule = topic.kind.value
                payload = encode(message)
                text = str(topic)
                self._count("messages_sent")
                self._count("bytes_sent", publish_bytes(text, len(payload), rule.qos))
                self.transport.publish(text, payload, rule.qos, rule.retain)
            case Compute() if effect.section in self._slow:
                self._pool(effect.lent).submit(lambda: self._put(self._compute(effect)))
            case Compute():
                return self._compute(effect)
            case Load(name):
                self._pool(lent=True).submit(lambda: self._put(self._ready(name)))
            case Unload(name):
                self._sections.pop(name, None)
            case Keep() | Forget():
                self._write_down(effect)
            case Save():
                if self._save is not None:
                    self._save(effect, self._put)
            case Log(level, message, arguments):
                log.log(getattr(logging, level.upper()), message, *arguments)
        return None

    def _write_down(self, effect: Keep | Forget) -> None:
        """A full disk costs the answers' safety from crashes, not the answers."""
        if self._answer_log is None:
            return
        try:
            if isinstance(effect, Keep):
                self._answer_log.keep(effect.answer)
            else:
                self._answer_log.forget(effect.samples)
        except OSError as error:
            self._count("answer_log_failed")
            log.error("answers are not on disk: %s", error)

    def _ready(self, name: str) -> _Ready:
        if self._load is None:
            return _Ready(name, None)
        try:
            section = self._load(name)
            return _Ready(name, section, self._is_slow(section))
        except Exception as error:  # a wrong file, or whatever else: the machine must hear of it
            log.error("section %s not loaded: %s", name, error)
            return _Ready(name, None)

    def _compute(self, effect: Compute) -> Computed:
        try:
            outputs = self._sections[effect.section](effect.inputs)
            self.inferred_s = time.monotonic()
            return Computed(effect.job, outputs)
        except Exception as error:  # whatever a section raises: the machine must hear of it
            log.error("section %s failed: %s: %s", effect.section, type(error).__name__, error)
            return Computed(effect.job, None)

    def _prove(self, now_s: float) -> None:
        """Run a section that had nothing to do for a while, so that its failure shows."""
        if self.inferred_s is not None and now_s - self.inferred_s < PROVE_S:
            return
        for name, section in self._sections.items():
            inputs: Arrays = getattr(section, "example", dict)()
            if inputs:
                prove = Compute(("prove", 0), name, inputs)
                if name in self._slow:
                    self._pool(name in self._lent).submit(self._compute, prove)
                else:
                    self._compute(prove)

    def _publish_stats(self) -> None:
        me = self.identity
        counts, gauges = self._report() if self._report is not None else ({}, {})
        counts = {**counts, **self.machine.counts, **self.counts}
        stats = Stats(
            me.role,
            time.monotonic() - self._started_s,
            resident_bytes(),
            counts,
            {**gauges, **self.machine.gauges, **self._own_gauges()},
        )
        topic = str(Topic(me.site, Kind.STATS, me.node))
        self.transport.publish(topic, encode(stats), 0, False)

    def _own_gauges(self) -> dict[str, float]:
        gauges = {"queue": float(len(self._inbox))}
        if self.inferred_s is not None:
            gauges["inference_age_s"] = time.monotonic() - self.inferred_s
        return gauges

    def _count(self, name: str, amount: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount
