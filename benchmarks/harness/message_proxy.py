"""A proxy in front of a broker that can lose, repeat or delay each message that is published."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from benchmarks.harness.proxy import Proxy

CONNECT, PUBLISH = 1, 3  # MQTT control packet types
MQTT_5 = 5

Decide = Callable[[str, bytes], Sequence[float]]
"""Takes topic and payload of a message on its way to the broker; returns after how many seconds
each copy of it goes on: [0.0] as it is, [] lost, [0.0, 0.3] repeated, [0.3] overtaken by others."""


class MessageProxy(Proxy):
    """Forwards connections of this machine to a port, and asks `decide` about every message.

    `decide` runs in the proxy's thread. A lost message of QoS 1 is confirmed to its sender, as a
    broker does that loses it afterwards.
    """

    def __init__(self, to_port: int, decide: Decide) -> None:
        self._decide = decide
        super().__init__(to_port)

    async def forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        version = 0
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head, body = await _read_packet(reader)
                delays_s: Sequence[float] = [0.0]
                if head[0] >> 4 == CONNECT:
                    version = body[2 + int.from_bytes(body[:2])]  # after the protocol's name
                elif head[0] >> 4 == PUBLISH:
                    topic, packet_id, payload = split_publish(head[0], body, version)
                    delays_s = self._decide(topic, payload)
                    if not delays_s and packet_id:
                        back.write(b"\x40\x02" + packet_id)  # PUBACK
                for delay_s in delays_s:
                    if delay_s:
                        self._loop.call_later(delay_s, writer.write, head + body)
                    else:
                        writer.write(head + body)
                await writer.drain()


def split_publish(first: int, body: bytes, version: int) -> tuple[str, bytes, bytes]:
    """Topic, packet id (empty at QoS 0) and payload of a PUBLISH packet.

    first: its first byte. body: what follows its length. version: of the protocol, 4 or 5
    """
    at = 2 + int.from_bytes(body[:2])
    topic, id_bytes = body[2:at].decode(), 2 if first & 0b0110 else 0
    packet_id = body[at : at + id_bytes]
    at += id_bytes
    if version == MQTT_5:  # properties, after their length
        length, shift = 0, 0
        while True:
            byte = body[at]
            length |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        at += length
    return topic, packet_id, body[at:]


async def _read_packet(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A control packet: its first byte and length as they came, and the rest."""
    head, length, shift = await reader.readexactly(1), 0, 0
    while True:
        byte = await reader.readexactly(1)
        head += byte
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return head, await reader.readexactly(length)
