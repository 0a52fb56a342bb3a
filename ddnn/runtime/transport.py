"""The interface of a broker connection; adapters implement it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The broker accepted the connection, whose unique `session` is also in its Last Will."""

    session: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection is gone; the transport keeps trying with jittered back-off."""

    reason: str


@dataclass(frozen=True, slots=True)
class Arrived:
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker does not let this client publish on a topic, or subscribe to a filter.

    too_large: it would take a smaller packet.
    """

    action: Literal["publish", "subscribe"]
    topic: str
    reason: str
    too_large: bool = False


LinkEvent = LinkUp | LinkDown | Arrived | Refused


class Transport(Protocol):
    """A connection that comes and goes, driven by one thread: the one that calls `wait`.

    That thread alone calls `subscribe` and `publish`, and the sink runs in it, so that a message
    is read, handled and answered without changing threads.
    """

    @property
    def max_packet_bytes(self) -> int | None:
        """The largest packet that the broker is known to take; None: nothing is known."""
        ...

    def start(
        self,
        sink: Callable[[LinkEvent], None],
        will: Callable[[int], tuple[str, bytes]],
    ) -> None:
        """Begin to connect; `will(session)` gives topic and payload of the (retained) Last Will."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Read and write until something has happened, at most for `timeout_s`; events go to the
        sink."""
        ...

    def wake(self) -> None:
        """From any thread: make `wait` return."""
        ...

    def subscribe(self, filters: Sequence[str]) -> None: ...

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """Hand over for sending; never blocks. Without a connection the message is dropped.

        What the broker refuses is reported as a `Refused`, at QoS 0 its size alone.
        """
        ...

    def close(self, last_words: tuple[str, bytes] | None = None) -> None:
        """Publish the retained `last_words`, wait for them briefly, disconnect. From any thread,
        once no thread calls `wait` any more."""
        ...
