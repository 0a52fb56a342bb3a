"""Fetches copies of layers from other nodes, part by part, and measures the rate of the link.

A node asks for one part after the other and asks again where no answer comes, so that lost,
repeated and reordered messages do no harm, and the sender keeps no state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ddnn.pipeline.sources import Origin, Stamp
from ddnn.protocol.train_messages import TrainFetch, TrainPart

LENGTH_BYTES = 1 << 20  # of a part: small enough that batches pass between two of them
FIRST_BYTES = 1 << 16  # of a part while the rate is not known
ACTIVE = 2  # fetches at a time
RETRY_S = 1.0  # at least, before a part is asked for again; then twice as long each time
MAX_DOUBLINGS = 5
SLOWER = 4.0  # times the duration that the measured rate suggests
RATE_BYTES = 4096  # parts below this size say nothing about the rate
LEAST_SHARE = 0.1  # of the time of a part that its bytes take, at least
SMOOTHING = 0.3
MAX_COPY_BYTES = 1 << 33


class Key(NamedTuple):
    """Which copy is fetched."""

    layer: int
    stamp: Stamp


@dataclass(slots=True)
class _Fetch:
    holder: str
    origin: Origin
    data: bytearray = field(default_factory=bytearray)
    asked_s: float | None = None
    due_s: float = 0.0
    tries: int = 0  # of the part that is awaited


class Fetched(NamedTuple):
    """A copy that is complete, or that its holder does not have: blob None."""

    key: Key
    holder: str
    origin: Origin
    blob: bytes | None


class Fetcher:
    """The copies that this node fetches. Each call returns the messages to send: (to, message)."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.rate_bytes_per_s = 0.0  # measured; 0: not yet
        self.parts = 0  # that were taken
        self._fetches: dict[Key, _Fetch] = {}  # in the order of their start
        self._trip_s = math.inf  # of the fastest small part: how long a message and its answer take

    @property
    def part_s(self) -> float:
        """How long a part may take; 0 where the rate is not known."""
        rate = self.rate_bytes_per_s
        return SLOWER * ACTIVE * LENGTH_BYTES / rate if rate else 0.0

    def __len__(self) -> int:
        return len(self._fetches)

    def __contains__(self, key: Key) -> bool:
        return key in self._fetches

    def start(self, key: Key, holder: str, origin: Origin) -> None:
        """Fetch a copy; where it is fetched already, go on."""
        self._fetches.setdefault(key, _Fetch(holder, origin))

    def cancel(self, is_unwanted: Callable[[Key, Origin], bool]) -> None:
        for key, fetch in list(self._fetches.items()):
            if is_unwanted(key, fetch.origin):
                del self._fetches[key]

    def ask(self, now_s: float) -> list[tuple[str, TrainFetch]]:
        """The messages that are due now."""
        asked = []
        for key, fetch in list(self._fetches.items())[:ACTIVE]:
            if fetch.asked_s is None or now_s >= fetch.due_s:
                # Parts that are asked for again wait behind each other on a thin link.
                wait_s = RETRY_S * 2.0 ** min(fetch.tries, MAX_DOUBLINGS)
                fetch.tries += 1
                length = FIRST_BYTES
                if self.rate_bytes_per_s:
                    length = LENGTH_BYTES
                    wait_s = max(wait_s, SLOWER * length / self.rate_bytes_per_s)
                fetch.asked_s, fetch.due_s = now_s, now_s + wait_s
                message = TrainFetch(1, self.node, key.layer, *key.stamp, len(fetch.data), length)
                asked.append((fetch.holder, message))
        return asked

    def due_s(self) -> float | None:
        """When to call `ask` next."""
        active = list(self._fetches.values())[:ACTIVE]
        return min((0.0 if f.asked_s is None else f.due_s for f in active), default=None)

    def take(self, part: TrainPart, now_s: float) -> Fetched | None:
        """Take a part; the copy where it is complete or is not to be had."""
        key = Key(part.layer, Stamp(part.term, part.version))
        fetch = self._fetches.get(key)
        if fetch is None or part.sender != fetch.holder:
            return None
        if part.total == 0 or part.total > MAX_COPY_BYTES:
            del self._fetches[key]
            return Fetched(key, fetch.holder, fetch.origin, None)
        if part.offset != len(fetch.data) or not part.data:
            return None  # repeated, or late
        if fetch.tries == 1 and not part.waited:  # else it may answer an earlier message
            self._measure(len(part.data), now_s - (fetch.asked_s or now_s))
        fetch.data += part.data
        self.parts += 1
        fetch.asked_s, fetch.tries = None, 0
        if len(fetch.data) < part.total:
            return None
        del self._fetches[key]
        return Fetched(key, fetch.holder, fetch.origin, bytes(fetch.data))

    def _measure(self, size: int, seconds: float) -> None:
        if size < RATE_BYTES:
            self._trip_s = min(self._trip_s, seconds)
        elif seconds > 0:
            trip_s = self._trip_s if self._trip_s < seconds else 0.0  # not measured: part of it
            rate = size / max(seconds - trip_s, LEAST_SHARE * seconds)
            before = self.rate_bytes_per_s or rate
            self.rate_bytes_per_s = (1 - SMOOTHING) * before + SMOOTHING * rate


def make_part(
    fetch: TrainFetch, node: str, blob: bytes | None, *, waited: bool = False
) -> TrainPart:
    """The answer to a fetch. waited: see TrainPart."""
    data = (
        b"" if blob is None else blob[fetch.offset : fetch.offset + min(fetch.length, LENGTH_BYTES)]
    )
    total = 0 if blob is None else len(blob)
    return TrainPart(
        1, node, data, fetch.layer, fetch.term, fetch.version, fetch.offset, total, waited
    )
