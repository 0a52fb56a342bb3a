"""Which nodes there are, as their own messages tell it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud_app.web import NodeView
from ddnn.protocol.machine import Event, Received
from ddnn.protocol.messages import Stats, Status

MAX_NODES = 10_000
_WORDS = {"online": "joined", "stopped": "stopped", "lost": "died"}


@dataclass(slots=True)
class _Seen:
    status: Status
    at_s: float
    memory_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class Registry:
    """Watches events of the cloud's machine; `nodes` may be called from any thread."""

    def __init__(self, event: Callable[[float, str, str, str], None]) -> None:
        self._event = event
        self._lock = threading.Lock()
        self._nodes: dict[tuple[str, str], _Seen] = {}

    def observe(self, event: Event) -> None:
        if not isinstance(event, Received):
            return
        key = (event.topic.site, event.topic.node)
        with self._lock:
            seen = self._nodes.get(key)
            if isinstance(event.message, Status):
                self._status(key, event.message)
            elif seen is not None:
                seen.at_s = time.monotonic()
                if isinstance(event.message, Stats):
                    seen.memory_bytes = event.message.memory_bytes
                    seen.counts = dict(event.message.counts)

    def nodes(self) -> list[NodeView]:
        now_s = time.monotonic()
        with self._lock:
            return [
                NodeView(
                    site, node, seen.status.role, seen.status.state, seen.status.bundle,
                    now_s - seen.at_s, seen.memory_bytes, dict(seen.counts),
                )
                for (site, node), seen in sorted(self._nodes.items())
            ]  # fmt: skip

    def _status(self, key: tuple[str, str], status: Status) -> None:
        seen = self._nodes.get(key)
        if seen is not None and status.state != "online" and status.session != seen.status.session:
            return  # the Will of a connection that is long replaced
        if seen is None and len(self._nodes) >= MAX_NODES:
            return
        if seen is None or (seen.status.session, seen.status.state) != (
            status.session,
            status.state,
        ):
            self._event(time.time(), *key, _WORDS[status.state])
        self._nodes[key] = _Seen(status, time.monotonic())
