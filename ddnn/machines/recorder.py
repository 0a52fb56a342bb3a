"""The device's side of a recording: it keeps pictures until the collector has them on disk.

    state       signal   next
    IDLE        START    RECORDING   the collector orders a recording, which this device allows
    RECORDING   END      SENDING     the time is over, or the collector ends it, or it is gone
    SENDING     START    RECORDING   the next burst
    SENDING     EMPTY    IDLE        all pictures are acknowledged, or nobody takes them any more

A picture is sent in chunks, one picture after the other; it is dropped when the collector reports
that it is on disk. A device without a broker continues, and sends later what it could keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi
from ddnn.core.site_time import find_tick
from ddnn.machines.picture_queue import PictureQueue
from ddnn.machines.states import advance
from ddnn.protocol.machine import (
    Captured,
    Connected,
    Disconnected,
    Effect,
    Event,
    Log,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.record_messages import (
    MAX_RECORDING_S,
    RecordAck,
    RecordOrder,
    RecordState,
)
from ddnn.protocol.topics import Kind, Topic, topic_filter

STATE_EVERY_S = 1.0
NOTICE_EVERY_S = 30.0  # between two lines in the log while it records
GRACE_S = 0.5  # in which the camera's thread delivers the last picture
SILENT_S = 15.0  # a collector that says nothing for so long is gone
GIVE_UP_S = 600.0  # after the end of a recording


class State(Enum):
    """The states of a device's part in recordings."""

    IDLE = auto()
    RECORDING = auto()
    SENDING = auto()


class Signal(Enum):
    """What moves it from one state to the next."""

    START = auto()
    END = auto()
    EMPTY = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.IDLE, Signal.START): State.RECORDING,
    (State.RECORDING, Signal.END): State.SENDING,
    (State.SENDING, Signal.START): State.RECORDING,
    (State.SENDING, Signal.EMPTY): State.IDLE,
}


class Window(NamedTuple):
    """The ticks whose pictures are wanted; replaced, never changed: the camera's thread reads it.

    every: one tick of so many; max_side_px, quality: of the JPEG
    """

    from_s: float
    until_s: float
    every: int
    max_side_px: int
    quality: int


@dataclass(frozen=True, slots=True)
class Permission:
    """What the user of a device allows. memory_bytes: for pictures that are not acknowledged yet;
    total_bytes: of all pictures of one recording."""

    allowed: bool
    memory_bytes: int = 32 << 20
    total_bytes: int = 2 << 30


class Recorder:
    """The part of a device that records. Sans-IO; see ddnn.protocol.machine.

    Its wall clock is the site's (ddnn.machines.clock.OnSiteTime).
    """

    def __init__(
        self,
        site: str,
        node: str,
        period_s: float,
        permission: Permission,
        *,
        bundle: str = "",
        preprocessing: Preprocessing | None = None,
        roi: Roi = WHOLE,
    ) -> None:
        """period_s: of the ticks; bundle, preprocessing, roi: what the device's section sees."""
        self.site, self.node, self.period_s = site, node, period_s
        self.permission = permission
        self.state = State.IDLE
        self.window: Window | None = None
        self.counts = {"pictures_taken": 0, "pictures_sent": 0, "pictures_dropped": 0}
        self._bundle, self._preprocessing, self._roi = bundle, preprocessing, roi
        self._session = ""
        self._burst = self._burst_before = 0
        self._taken = self._dropped = self._total_bytes = 0  # of the session
        self._queue = PictureQueue(permission.memory_bytes)
        self._end_at_s = self._state_at_s = self._notice_at_s = math.inf  # monotonic
        self._heard_s = self._ended_s = 0.0
        self._connected = False

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, "a recording")

    @property
    def gauges(self) -> dict[str, float]:
        if not self.permission.allowed:
            return {}
        recording = self.state is State.RECORDING
        return {"recording": float(recording), "pictures_waiting": float(len(self._queue))}

    def wants(self, sample: int) -> Window | None:
        """The window that the sample belongs to; None: its picture is not wanted. Any thread."""
        window, tick = self.window, find_tick(sample)
        if window is None or tick % window.every:
            return None
        return window if window.from_s <= tick * self.period_s < window.until_s else None

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.RECORD_ORDER, self.site),
            topic_filter(Kind.RECORD_ACK, self.site, self.node),
        ]

    def deadline_s(self) -> float | None:
        if self.state is State.IDLE:
            return None
        return min(self._end_at_s, self._state_at_s, self._queue.due_s)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.RECORD_ORDER), RecordOrder() as order):
                effects += self._take_order(order, now)
            case Received(Topic(_, Kind.RECORD_ACK, self.node), RecordAck() as ack):
                self._take_ack(ack, now)
            case Captured(sample=sample, picture=bytes() as picture):
                self._keep(sample, picture)
            case Connected():
                self._connected, self._heard_s = True, now.monotonic_s
                self._queue.restart(now.monotonic_s)
            case Disconnected():
                self._connected = False
                self._queue.pause()
        if self.state is not State.IDLE:
            effects += self._go_on(now)
        return effects

    # ------------------------------------------------------------------ orders

    def _take_order(self, order: RecordOrder, now: Now) -> list[Effect]:
        if reason := self._find_refusal(order, now):
            refused = RecordState(order.session, "refused", reason)
            return [Publish(Topic(self.site, Kind.RECORD_STATE, self.node), refused)]
        effects: list[Effect] = []
        if order.session != self._session:
            effects += self._abandon("another collector has taken over")
            self._session, self._taken, self._dropped, self._total_bytes = order.session, 0, 0, 0
            self._burst = self._burst_before = 0
        self._heard_s, left_s = now.monotonic_s, order.until_s - now.wall_s
        if left_s <= 0:
            self._cut(order, now)
            return [*effects, self._publish_state()]
        if self.state is not State.RECORDING:
            self.move(Signal.START)
            self._notice_at_s = now.monotonic_s
        if order.burst != self._burst:
            self._burst_before, self._burst = self._burst, order.burst
        self._end_at_s = now.monotonic_s + left_s + GRACE_S
        self.window = Window(
            order.from_s,
            order.until_s,
            max(1, round(order.every_s / self.period_s)),
            order.max_side_px,
            order.quality,
        )
        self._state_at_s = now.monotonic_s  # at once
        return effects

    def _find_refusal(self, order: RecordOrder, now: Now) -> str:
        """Why the order is refused; "" where it is not."""
        if not self.permission.allowed:
            return "it does not allow recordings; start it with --allow-recording on"
        heard = now.monotonic_s - self._heard_s < SILENT_S
        if order.session != self._session and self.state is not State.IDLE and heard:
            return "it records for another collector; wait until that has ended"
        if order.until_s - max(order.from_s, now.wall_s) > MAX_RECORDING_S:
            return f"a recording lasts at most {MAX_RECORDING_S:.0f} s"
        if self._total_bytes >= self.permission.total_bytes and order.session == self._session:
            return f"it has sent {self._total_bytes} bytes, all that one recording may"
        return ""

    def _cut(self, order: RecordOrder, now: Now) -> None:
        """End the recording at the end of the order, which has passed."""
        if self.state is State.RECORDING:
            self._end_at_s = min(self._end_at_s, now.monotonic_s + GRACE_S)
            if self.window is not None:
                self.window = self.window._replace(until_s=order.until_s)

    # ----------------------------------------------------------------- pictures

    def _keep(self, sample: int, picture: bytes) -> None:
        """Keep a picture for the collector, or drop it where there is no room."""
        if self.state is State.IDLE or sample in self._queue:
            return
        self._taken += 1
        self.counts["pictures_taken"] += 1
        # A picture may have been on its way when the order of the next burst came.
        early = self.window is not None and self._find_time_s(sample) < self.window.from_s
        burst = self._burst_before if early else self._burst
        if not burst:  # of no burst of this session
            return
        is_spent = self._total_bytes + len(picture) > self.permission.total_bytes
        if is_spent or not self._queue.add(sample, burst, picture):
            self._count_dropped(1)
        else:
            self._total_bytes += len(picture)

    def _find_time_s(self, sample: int) -> float:
        return find_tick(sample) * self.period_s

    def _take_ack(self, ack: RecordAck, now: Now) -> None:
        if ack.session == self._session and self.state is not State.IDLE:
            self._heard_s = now.monotonic_s
            self.counts["pictures_sent"] += self._queue.acknowledge(ack, now.monotonic_s)

    def _send(self, now: Now) -> list[Effect]:
        if not self._connected:
            return []
        topic = Topic(self.site, Kind.RECORD_CHUNK, self.node)
        chunks = self._queue.make_chunks(self._session, now.monotonic_s)
        return [Publish(topic, chunk) for chunk in chunks]

    # --------------------------------------------------------------------- time

    def _go_on(self, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        if self.state is State.RECORDING and now.monotonic_s >= self._notice_at_s:
            self._notice_at_s = now.monotonic_s + NOTICE_EVERY_S
            text = "RECORDING: pictures of this camera are sent to a collector (%s), %.0f s more"
            effects.append(Log("warning", text, (self._session, self._end_at_s - now.monotonic_s)))
        if self._connected and now.monotonic_s - self._heard_s >= SILENT_S:
            effects += self._end(now) if self.state is State.RECORDING else []
            effects += self._abandon("the collector is gone")
        elif self.state is State.RECORDING and now.monotonic_s >= self._end_at_s:
            effects += self._end(now)
        elif self.state is State.SENDING and now.monotonic_s - self._ended_s >= GIVE_UP_S:
            effects += self._abandon("nobody has taken them")
        effects += self._send(now)
        if self.state is State.SENDING and not self._queue:
            self.move(Signal.EMPTY)
            return [*effects, self._publish_state()]
        if now.monotonic_s >= self._state_at_s:
            self._state_at_s = now.monotonic_s + STATE_EVERY_S
            effects.append(self._publish_state())
        return effects

    def _end(self, now: Now) -> list[Effect]:
        self.move(Signal.END)
        self._end_at_s, self._ended_s = math.inf, now.monotonic_s
        text = "the recording has ended: %d pictures were taken, %d are still to be sent"
        return [Log("warning", text, (self._taken, len(self._queue)))]

    def _abandon(self, reason: str) -> list[Effect]:
        """Drop the pictures that nobody takes."""
        if self.state is State.RECORDING:
            self.move(Signal.END)
        if self.state is State.SENDING:
            self.move(Signal.EMPTY)
        lost = self._queue.clear()
        self._count_dropped(lost)
        self.window = None
        text = "%d recorded pictures are dropped: %s"
        return [Log("warning", text, (lost, reason))] if lost else []

    def _count_dropped(self, count: int) -> None:
        self._dropped += count
        self.counts["pictures_dropped"] += count

    def _publish_state(self) -> Publish:
        names = {State.IDLE: "done", State.RECORDING: "recording", State.SENDING: "sending"}
        state = RecordState(
            self._session,
            names[self.state],  # type: ignore[arg-type]
            "",
            self._taken,
            len(self._queue),
            self._dropped,
            self.period_s,
            self._bundle,
            self._preprocessing,
            self._roi,
        )
        return Publish(Topic(self.site, Kind.RECORD_STATE, self.node), state)
