"""A registry whose clock a test sets, with the events that it reports."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cloud_app.registry import (
    Registry,
)
from ddnn.protocol.machine import Received
from ddnn.protocol.messages import Message, Stats, Status
from ddnn.protocol.topics import Kind, Topic
from tests.answer_builder import make_answer

ANSWER = make_answer(
    3, node="cam1", exit="device", members=["cam1"], quality="degraded", expected_accuracy=None
)


WANTED = ("cam1", "cam2", "edge", "cloud")


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self.now_s = 1000.0
        self.registry = Registry(self._record_event, lambda: 1e9 + self.now_s, WANTED)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(time, "time", lambda: 1e9 + self.now_s)

    def _record_event(self, at_s: float, site: str, node: str, what: str, key: str) -> None:
        self.events.append((node, what))
        self.keys.append(key)

    def receive(self, node: str, message: Message, kind: Kind = Kind.STATUS) -> None:
        self.registry.observe(Received(Topic("home", kind, node), message))

    def receive_status(self, node: str, state: Any, session: int = 1) -> None:
        self.receive(node, Status("device", session, state, "b1", "0.1"))

    def receive_stats(self, node: str, uptime_s: float = 5.0, **counts: int) -> None:
        self.receive(node, Stats("device", uptime_s, 1 << 20, counts, {"queue": 1.0}), Kind.STATS)

    def list_states(self) -> dict[str, str]:
        return {view.id: view.state for view in self.registry.list_nodes()}
