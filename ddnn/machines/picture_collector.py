"""The collector's side of a recording: it orders pictures from devices, and has each one kept.

    state       signal   next
    READY       BEGIN    RECORDING   a burst: pictures of agreed ticks, with one label
    RECORDING   BEGIN    RECORDING   the next burst takes its place
    RECORDING   END      DRAINING    its time is over, or the user ends it, or the disk fails
    DRAINING    BEGIN    RECORDING   the next burst
    DRAINING    FINISH   DONE        all devices have sent what they kept, or the wait is over
    READY       FINISH   DONE        nothing was recorded

A picture is acknowledged after it was written: what is acknowledged is on disk. A picture that
cannot be written is not acknowledged, ends the recording, and is tried again when the device
repeats it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple

from ddnn.machines.picture_assembly import PictureAssembly
from ddnn.machines.states import advance
from ddnn.protocol.machine import (
    Call,
    Connected,
    Disconnected,
    Effect,
    Event,
    Log,
    Now,
    Publish,
    Received,
    Returned,
)
from ddnn.protocol.messages import Status
from ddnn.protocol.record_messages import RecordAck, RecordChunk, RecordOrder, RecordState
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

LEAD_S = 1.0  # from the first order of a burst to its first tick, so that all devices have it
ORDER_EVERY_S = 2.0
MAX_DEVICES = 64


class State(Enum):
    """The states of a collector."""

    READY = auto()
    RECORDING = auto()
    DRAINING = auto()
    DONE = auto()


class Signal(Enum):
    """What moves a collector from one state to the next."""

    BEGIN = auto()
    END = auto()
    FINISH = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.READY, Signal.BEGIN): State.RECORDING,
    (State.RECORDING, Signal.BEGIN): State.RECORDING,
    (State.RECORDING, Signal.END): State.DRAINING,
    (State.DRAINING, Signal.BEGIN): State.RECORDING,
    (State.DRAINING, Signal.FINISH): State.DONE,
    (State.READY, Signal.FINISH): State.DONE,
}


class Picture(NamedTuple):
    """A whole picture, to be kept."""

    device: str
    session: str
    burst: int
    sample: int
    jpeg: bytes


class KeepJob(NamedTuple):
    """The token of a Call effect: a picture is written."""

    session: str
    device: str
    burst: int
    sample: int


@dataclass(frozen=True, slots=True)
class Format:
    """What devices send. every_s: between two ticks that are recorded."""

    every_s: float = 0.5
    max_side_px: int = 1280
    quality: int = 90


@dataclass(slots=True)
class Contributor:
    """A device, as the collector knows it."""

    status: Status | None = None
    state: RecordState | None = None  # its last report on this session
    assembly: PictureAssembly | None = None
    kept: dict[int, int] = field(default_factory=dict)  # samples that are on disk: their burst
    kept_bytes: int = 0
    newest: Any = None  # what `keep` returned last
    is_asked: bool = False  # its report on the present burst is still to come

    @property
    def is_online(self) -> bool:
        return self.status is not None and self.status.state == "online"

    @property
    def takes_part(self) -> bool:
        return bool(self.kept) or (self.state is not None and self.state.state != "refused")

    @property
    def is_done(self) -> bool:
        if not self.takes_part:
            return True
        return not self.is_asked and self.state is not None and self.state.state == "done"


class PictureCollector:
    """Collects the pictures of one session. Sans-IO; see ddnn.protocol.machine.

    Its wall clock must be the site's. keep(picture) writes a picture, in another thread, and raises
    an exception where that fails; what it returns is the device's `newest`. It returns None for a
    picture that is broken, of which nothing can be kept.
    """

    def __init__(
        self,
        site: str,
        session: str,
        keep: Callable[[Picture], Any],
        format_: Format | None = None,
        *,
        max_bytes: int = 1 << 30,
        drain_s: float = 30.0,
    ) -> None:
        """max_bytes: of the session; drain_s: how long devices that are away are waited for."""
        self.site, self.session, self.format = site, session, format_ or Format()
        self.state = State.READY
        self.devices: dict[str, Contributor] = {}
        self.failure = ""  # why a picture could not be kept
        self.ended_because = ""  # why a burst ended before its time
        self.burst = 0
        self.bounds_s = (0.0, 0.0)  # of the burst, of the site's time; the end is excluded
        self.counts: Counter[str] = Counter()
        self.is_connected = False
        self._keep, self._max_bytes, self._drain_s = keep, max_bytes, drain_s
        self._writing: set[tuple[str, int]] = set()
        self._order_at_s = self._end_at_s = self._finish_at_s = math.inf  # monotonic
        self._is_finishing = False

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, "a collector")

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    @property
    def kept_bytes(self) -> int:
        return sum(device.kept_bytes for device in self.devices.values())

    def count_samples(self, burst: int | None = None) -> int:
        """Samples of a burst, or of all, of which a picture is on disk."""
        return len(
            {
                sample
                for device in self.devices.values()
                for sample, of in device.kept.items()
                if burst is None or of == burst
            }
        )

    def subscriptions(self) -> list[str]:
        kinds = (Kind.RECORD_STATE, Kind.RECORD_CHUNK)
        return [*presence_filters(self.site), *(topic_filter(kind, self.site) for kind in kinds)]

    def deadline_s(self) -> float | None:
        due_s = min(self._order_at_s, self._end_at_s, self._finish_at_s)
        return None if math.isinf(due_s) else due_s

    # ------------------------------------------------------------ the user's part

    def begin(self, for_s: float, now: Now) -> list[Effect]:
        """Begin a burst of so many seconds, which takes the place of one that is not over."""
        self.move(Signal.BEGIN)
        for device in self.devices.values():
            device.is_asked = device.takes_part
        self.burst += 1
        self.ended_because = ""
        from_s = now.wall_s + LEAD_S
        self.bounds_s = from_s, from_s + for_s
        self._end_at_s = now.monotonic_s + LEAD_S + for_s
        return self._order(now)

    def end(self, now: Now, reason: str = "") -> list[Effect]:
        """End the burst now; without one nothing happens."""
        if self.state is not State.RECORDING:
            return []
        self.move(Signal.END)
        self.ended_because = reason
        self._end_at_s = math.inf
        self.bounds_s = self.bounds_s[0], min(self.bounds_s[1], now.wall_s)
        return self._order(now)

    def finish(self, now: Now) -> list[Effect]:
        """End the session once devices have sent what they kept, at most `drain_s` from now."""
        effects = self.end(now)
        if not self._is_finishing:
            self._is_finishing = True
            self._finish_at_s = now.monotonic_s + self._drain_s
        return effects

    # --------------------------------------------------------------------- events

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.STATUS, node), Status(role="device") as status):
                self._take_status(node, status)
            case Received(Topic(_, Kind.RECORD_STATE, node), RecordState() as state):
                if state.session == self.session and (device := self._find(node)):
                    device.state, device.is_asked = state, False
            case Received(Topic(_, Kind.RECORD_CHUNK, node), RecordChunk() as chunk):
                effects += self._take_chunk(node, chunk, now)
            case Returned(KeepJob(session=self.session) as job, value, error=error):
                effects += self._finish_keeping(job, value, error, now)
            case Connected():
                self.is_connected, self._order_at_s = True, now.monotonic_s
            case Disconnected():
                self.is_connected = False
        if self.state is State.RECORDING and now.monotonic_s >= self._end_at_s:
            effects += self.end(now)
        if now.monotonic_s >= self._order_at_s:
            effects += self._order(now)
        if self._is_finishing and self.state in (State.READY, State.DRAINING):
            over = now.monotonic_s >= self._finish_at_s
            if not self._writing and (over or self._all_done()):
                self.move(Signal.FINISH)
                self._order_at_s = self._finish_at_s = math.inf
            elif over:
                self._finish_at_s = now.monotonic_s + 1.0  # a picture is being written
        return effects

    def _find(self, node: str) -> Contributor | None:
        if node not in self.devices and len(self.devices) >= MAX_DEVICES:
            return None
        return self.devices.setdefault(node, Contributor())

    def _take_status(self, node: str, status: Status) -> None:
        """Take a status, except the Last Will of an older session."""
        device = self._find(node)
        if device is None:
            return
        old = device.status
        if status.state == "online" or old is None or old.session == status.session:
            if old is not None and old.session != status.session:
                device.is_asked = device.takes_part  # after a restart it may have less
            device.status = status

    def _all_done(self) -> bool:
        """Whether no device has pictures that it may still send."""
        if not self.is_connected:
            return False
        if self.counts["pictures_over_limit"]:
            return True
        return all(device.is_done for device in self.devices.values())

    def _order(self, now: Now) -> list[Effect]:
        self._order_at_s = now.monotonic_s + ORDER_EVERY_S
        if not self.is_connected:
            return []
        order = RecordOrder(
            self.session,
            self.burst,
            *self.bounds_s,
            self.format.every_s,
            self.format.max_side_px,
            self.format.quality,
        )
        return [Publish(Topic(self.site, Kind.RECORD_ORDER), order)]

    # ------------------------------------------------------------------- pictures

    def _take_chunk(self, node: str, chunk: RecordChunk, now: Now) -> list[Effect]:
        device = self._find(node)
        if device is None or chunk.session != self.session or self.state is State.DONE:
            return []
        if not 1 <= chunk.burst <= self.burst:
            self.counts["chunks_refused"] += 1
            return []
        if chunk.sample in device.kept:  # the acknowledgement was lost
            return [self._acknowledge(node, chunk.sample, chunk.total, kept=True)]
        if (node, chunk.sample) in self._writing:
            return []
        assembly = device.assembly
        if assembly is None or not assembly.fits(chunk):
            assembly = device.assembly = PictureAssembly.of(chunk)
        if not assembly.add(chunk):
            self.counts["chunks_refused"] += 1
            return []
        received = assembly.received
        if received < assembly.total:
            return [self._acknowledge(node, chunk.sample, received)]
        if self.kept_bytes + assembly.total > self._max_bytes:
            self.counts["pictures_over_limit"] += 1
            return self.end(now, f"the limit of {self._max_bytes} bytes is reached")
        self._writing.add((node, chunk.sample))
        picture = Picture(node, self.session, chunk.burst, chunk.sample, assembly.join())
        job = KeepJob(self.session, node, chunk.burst, chunk.sample)
        return [Call(job, partial(self._measure_and_keep, picture))]

    def _measure_and_keep(self, picture: Picture) -> tuple[int, Any]:
        return len(picture.jpeg), self._keep(picture)

    def _finish_keeping(self, job: KeepJob, value: Any, error: str, now: Now) -> list[Effect]:
        self._writing.discard((job.device, job.sample))
        device = self.devices[job.device]
        if error:
            self.failure = error
            self.counts["pictures_failed"] += 1
            reason = f"a picture cannot be kept: {error}"
            return [Log("error", "%s", (reason,)), *self.end(now, reason)]
        device.assembly = None
        size, found = value
        if found is None:
            self.counts["pictures_broken"] += 1
        else:
            device.newest = found
            device.kept[job.sample] = job.burst
            device.kept_bytes += size
        return [self._acknowledge(job.device, job.sample, size, kept=True)]

    def _acknowledge(self, node: str, sample: int, received: int, *, kept: bool = False) -> Effect:
        ack = RecordAck(1, self.session, sample, received, kept)
        return Publish(Topic(self.site, Kind.RECORD_ACK, node), ack)
