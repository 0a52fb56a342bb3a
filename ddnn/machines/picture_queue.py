"""Pictures on their way to a collector: in order, in chunks, kept until they are acknowledged."""

from __future__ import annotations

import math
from collections import OrderedDict

from ddnn.protocol.record_messages import (
    CHUNK_BYTES,
    MAX_PICTURE_BYTES,
    RecordAck,
    RecordChunk,
)

IN_FLIGHT_BYTES = 4 * CHUNK_BYTES
RESEND_S = (0.5, 4.0)  # the interval doubles from the first to the second


class PictureQueue:
    """A bounded queue, whose first picture is sent until the collector has it on disk.

    memory_bytes: of all pictures in it, at most
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._pictures: OrderedDict[int, tuple[int, bytes]] = OrderedDict()  # burst and JPEG
        self._waiting_bytes = 0
        self._received = self._sent = 0  # bytes of the first picture
        self._resend_s = RESEND_S[0]
        self.due_s = math.inf  # monotonic: when chunks are sent again

    def __len__(self) -> int:
        return len(self._pictures)

    def __contains__(self, sample: int) -> bool:
        return sample in self._pictures

    def add(self, sample: int, burst: int, picture: bytes) -> bool:
        """Add a picture; False where there is no room for it."""
        size = len(picture)
        if self._waiting_bytes + size > self._memory_bytes or not 0 < size <= MAX_PICTURE_BYTES:
            return False
        self._pictures[sample] = burst, picture
        self._waiting_bytes += size
        return True

    def acknowledge(self, ack: RecordAck, now_s: float) -> bool:
        """Take an acknowledgement; True where the picture is kept and has left the queue."""
        found = self._pictures.get(ack.sample)
        if found is None:
            return False
        is_first = ack.sample == next(iter(self._pictures))
        if ack.kept:
            del self._pictures[ack.sample]
            self._waiting_bytes -= len(found[1])
            if is_first:
                self._received = self._sent = 0
        elif is_first and ack.received > self._received:
            self._received = min(ack.received, len(found[1]))
            self._sent = max(self._sent, self._received)
        else:
            return False
        self._resend_s = RESEND_S[0]
        self.due_s = now_s + self._resend_s
        return ack.kept

    def make_chunks(self, session: str, now_s: float) -> list[RecordChunk]:
        """The chunks of the first picture that are to be sent now, some of them again."""
        if not self._pictures:
            self.due_s = math.inf
            return []
        sample, (burst, picture) = next(iter(self._pictures.items()))
        total = len(picture)
        if now_s >= self.due_s:  # from the beginning: the first answer says what is there
            self._sent = self._received = 0
            self._resend_s = min(2 * self._resend_s, RESEND_S[1])
            self.due_s = now_s + self._resend_s
        elif math.isinf(self.due_s):
            self.due_s = now_s + self._resend_s
        chunks = []
        while self._sent < min(total, self._received + IN_FLIGHT_BYTES):
            data = picture[self._sent : self._sent + CHUNK_BYTES]
            chunks.append(RecordChunk(1, session, burst, sample, self._sent, total, data))
            self._sent += len(data)
        return chunks

    def restart(self, now_s: float) -> None:
        """Send again at once: the connection is a new one."""
        self._resend_s, self.due_s = RESEND_S[0], now_s

    def pause(self) -> None:
        """Send nothing: there is no connection."""
        self.due_s = math.inf

    def clear(self) -> int:
        """Drop all pictures; returns how many there were."""
        count = len(self._pictures)
        self._pictures.clear()
        self._waiting_bytes = self._received = self._sent = 0
        self.due_s = math.inf
        return count
