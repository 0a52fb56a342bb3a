"""What a node needs of a broker connection; adapters implement it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker took us. `session` stands in the Last Will of this connection, and only of it."""

    session: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection is gone; the transport keeps trying with jittered back-off."""

    reason: str


@dataclass(frozen=True, slots=True)
class Arrived:
    topic: str
    payload: bytes


LinkEvent = LinkUp | LinkDown | Arrived


class Transport(Protocol):
    """A connection that comes and goes. Events may be handed over from any thread."""

    def start(
        self,
        sink: Callable[[LinkEvent], None],
        will: Callable[[int], tuple[str, bytes]],
    ) -> None:
        """Begin to connect; `will(session)` gives topic and payload of the (retained) Last Will."""
        ...

    def subscribe(self, filters: Sequence[str]) -> None: ...

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Hand over for sending; never blocks. Without a connection the message is dropped."""
        ...

    def close(self, last_words: tuple[str, bytes] | None = None) -> None:
        """Publish the retained `last_words`, wait for them briefly, disconnect."""
        ...
