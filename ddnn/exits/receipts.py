"""Receipts for devices: that samples are answered, several of them in one message."""

from __future__ import annotations

from ddnn.protocol.machine import Effect, Now, Publish
from ddnn.protocol.messages import MAX_BATCH, Answered
from ddnn.protocol.topics import Kind, Topic

WAIT_S = 0.04  # far less than the time between an edge's last answer and that of a device


class Receipts:
    """Collects the samples that are answered, and publishes them together a little later."""

    def __init__(self, site: str, node: str) -> None:
        self._topic = Topic(site, Kind.ANSWERED, node)
        self._samples: list[int] = []
        self._due_s: float | None = None

    def add(self, sample: int, now: Now) -> list[Effect]:
        self._samples.append(sample)
        if self._due_s is None:
            self._due_s = now.monotonic_s + WAIT_S
        return self._publish() if len(self._samples) == MAX_BATCH else []

    def deadline_s(self) -> float | None:
        return self._due_s

    def end_due(self, now: Now) -> list[Effect]:
        """Publish what has waited long enough."""
        is_due = self._due_s is not None and now.monotonic_s >= self._due_s
        return self._publish() if is_due else []

    def _publish(self) -> list[Effect]:
        samples, self._samples, self._due_s = self._samples, [], None
        return [Publish(self._topic, Answered(1, samples))]
