"""Checks this machine's clock against that of the lead edge, which numbers the samples."""

from __future__ import annotations

import ctypes
import time
from typing import cast

from ddnn.cli.doctor.broker import BrokerConnection
from ddnn.cli.doctor.check import Finding
from ddnn.cli.observer import ObserverSettings
from ddnn.errors import DdnnError, RemoteProtocolError
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.messages import TimeReply, TimeRequest
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.transport import Arrived, LinkEvent

REQUESTS = 8
REPLY_S = 1.0
MAX_OFFSET_S = 60.0
SET_CLOCK = "set the clock: systemctl enable --now systemd-timesyncd, or chrony"
NTP_NOTES = {True: "; NTP synchronizes it", False: "; NTP does not synchronize it", None: ""}
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


def check_clock(settings: ObserverSettings, connection: BrokerConnection) -> Finding:
    """Check that the clocks differ by less than half a window."""
    edges = [node for node, status in connection.online.items() if status.role == "edge"]
    synchronized = is_ntp_synchronized()
    note = NTP_NOTES[synchronized]
    if not edges:
        message = f"no edge is online to compare this clock with{note}"
        return Finding.skipped(message, SET_CLOCK if synchronized is False else "")
    measured = measure_offset(settings, connection)
    if measured is None:
        message = f"{', '.join(edges)} does not answer time requests{note}"
        remedy = "check that the site's lead edge runs, has this version and does not stall"
        return Finding.warning(message, remedy)
    offset_s, error_s = measured
    surplus_s = abs(offset_s) - error_s
    message = f"{_format_offset(offset_s, error_s)} the lead edge's{note}"
    remedy = f"{SET_CLOCK}, here or at the lead edge, whose clock the samples follow"
    if surplus_s > MAX_OFFSET_S:
        return Finding.failed(message, remedy, DdnnError)
    if surplus_s > settings.window_s / 2 or synchronized is False:
        return Finding.warning(message, remedy)
    return Finding.ok(message)


def measure_offset(
    settings: ObserverSettings, connection: BrokerConnection
) -> tuple[float, float] | None:
    """Measure by how many seconds this clock is ahead of the lead edge's, and the possible error.

    Of several exchanges the one with the shortest round trip counts. None: no edge answers.
    """
    reply_topic = str(Topic(settings.site, Kind.TIME_REPLY, settings.node))
    request_topic = str(Topic(settings.site, Kind.TIME_REQUEST, settings.node))
    connection.transport.subscribe([reply_topic])
    best: tuple[float, float] | None = None
    for _ in range(REQUESTS):
        asked_s, wall_s = time.monotonic(), time.time()
        # Negative, so that the node itself, if it runs, does not take the reply for its own.
        request = encode(TimeRequest(-asked_s))
        connection.transport.publish(request_topic, request, 0, False)

        def is_reply(event: LinkEvent, asked_s: float = asked_s) -> bool:
            reply = _decode_reply(event, reply_topic)
            return reply is not None and reply.echo_s == -asked_s

        reply = _decode_reply(connection.wait_for(is_reply, REPLY_S), reply_topic)
        if reply is None:
            break
        half_s = (time.monotonic() - asked_s) / 2
        if best is None or half_s < best[1]:
            best = wall_s + half_s - reply.replied_at_s, half_s
    return best


def is_ntp_synchronized() -> bool | None:
    """Whether NTP synchronizes the kernel's clock; None where the system does not report it."""
    try:
        # A structure of zeros changes nothing: the call only returns the state.
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != TIME_ERROR


def _decode_reply(event: LinkEvent | None, topic: str) -> TimeReply | None:
    if not isinstance(event, Arrived) or event.topic != topic:
        return None
    try:
        return cast(TimeReply, decode(Kind.TIME_REPLY, event.payload))
    except RemoteProtocolError:
        return None


def _format_offset(offset_s: float, error_s: float) -> str:
    if abs(offset_s) <= error_s:
        return f"within {1e3 * error_s:.1f} ms of"
    size = f"{1e3 * abs(offset_s):.1f} ms" if abs(offset_s) < 1 else f"{abs(offset_s):.1f} s"
    return f"{size} {'ahead of' if offset_s > 0 else 'behind'}"
