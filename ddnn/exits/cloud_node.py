"""The cloud node: it runs the deepest section and has every answer stored."""

from __future__ import annotations

from ddnn.core.ids import is_id
from ddnn.exits.fusion_node import FusionNode
from ddnn.exits.manifest import Manifest
from ddnn.exits.timing import Timing
from ddnn.protocol.machine import (
    Effect,
    Event,
    Now,
    Publish,
    Received,
    Save,
    Saved,
)
from ddnn.protocol.messages import Answer, Backlog, Stored
from ddnn.protocol.topics import Kind, Topic, topic_filter

CONFIRM_BATCH = 1024


class CloudNode:
    """Fusion for the sites that match `site` ('+': all), and a recorder of their answers."""

    def __init__(
        self, site: str, node: str, bundle: str, manifest: Manifest, timing: Timing
    ) -> None:
        self.site = site
        self.fusion = FusionNode(site, node, bundle, manifest, timing, cloud=True)
        self.counts = self.fusion.counts

    def subscriptions(self) -> list[str]:
        return [
            *self.fusion.subscriptions(),
            topic_filter(Kind.RESULT, self.site),
            topic_filter(Kind.BACKLOG, self.site),
            topic_filter(Kind.STATS, self.site),
        ]

    def deadline_s(self) -> float | None:
        return self.fusion.deadline_s()

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects = self.fusion.handle(event, now)  # whatever the event: its deadlines come due
        match event:
            case Received(Topic(site, Kind.RESULT), Answer() as answer):
                effects += self._save(site, [answer])
            case Received(Topic(site, Kind.BACKLOG, node), Backlog() as backlog):
                effects += self._save(site, [a for a in backlog.answers if a.node == node])
            case Saved():
                effects += self._confirm(event)
        return effects

    def _save(self, site: str, answers: list[Answer]) -> list[Effect]:
        good = [answer for answer in answers if is_id(answer.node)]
        self.counts["answers"] = self.counts.get("answers", 0) + len(good)
        return [Save([(site, answer) for answer in good])] if good else []

    def _confirm(self, event: Saved) -> list[Effect]:
        """Tell each node which of its answers it may forget."""
        by_node: dict[tuple[str, str], list[int]] = {}
        for site, answer in event.answers:
            by_node.setdefault((site, answer.node), []).append(answer.sample)
        return [
            Publish(Topic(site, Kind.STORED, node), Stored(samples[start : start + CONFIRM_BATCH]))
            for (site, node), samples in by_node.items()
            for start in range(0, len(samples), CONFIRM_BATCH)
        ]
