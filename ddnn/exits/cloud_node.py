"""The cloud node: it stores the answers of its sites and runs the deepest section."""

from __future__ import annotations

from ddnn.exits.fusion_node import FusionNode
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.manifest import Manifest
from ddnn.exits.tiers import CloudTier
from ddnn.exits.timing import Timing
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.versioned import Version, VersionedMachine
from ddnn.protocol.machine import (
    Effect,
    Event,
    Now,
    Publish,
    Received,
    Save,
    Saved,
)
from ddnn.protocol.messages import Answer, AnswerAck, Backlog
from ddnn.protocol.topics import Kind, Topic, presence_filters, share_filter, topic_filter

CONFIRM_BATCH = 1024


class StoreNode:
    """A recorder of the answers of the sites that match `site` ('+': all).

    Recorders with the same `share` group divide the answers among them; the store is idempotent,
    so that recorders of different groups, or of none, may write the same answer.
    """

    def __init__(self, site: str, share: str = "") -> None:
        self.site, self._share = site, share
        self.counts: dict[str, int] = {}
        self.gauges: dict[str, float] = {}

    def subscriptions(self) -> list[str]:
        return [
            share_filter(topic_filter(Kind.ANSWER, self.site), self._share),
            share_filter(topic_filter(Kind.BACKLOG, self.site), self._share),
            topic_filter(Kind.STATS, self.site),
            topic_filter(Kind.OFFLOAD, self.site),
            topic_filter(Kind.TRAIN_STATE, self.site),
            topic_filter(Kind.BUNDLE_STATE, self.site),
            *presence_filters(self.site),
        ]

    def deadline_s(self) -> float | None:
        return None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Received(Topic(site, Kind.ANSWER, node), Answer() as answer):
                return self._save(site, node, [answer])
            case Received(Topic(site, Kind.BACKLOG, node), Backlog() as backlog):
                return self._save(site, node, backlog.answers)
            case Saved():
                return self._confirm(event)
        return []

    def _save(self, site: str, node: str, answers: list[Answer]) -> list[Effect]:
        """Save the answers that the node gave itself: nobody answers in another's name."""
        good = [answer for answer in answers if answer.node == node]
        self.counts["answers"] = self.counts.get("answers", 0) + len(good)
        if len(good) < len(answers):
            refused = self.counts.get("answers_refused", 0) + len(answers) - len(good)
            self.counts["answers_refused"] = refused
        return [Save([(site, answer) for answer in good])] if good else []

    def _confirm(self, event: Saved) -> list[Effect]:
        """Report to each node which of its answers are stored, so that it forgets them."""
        by_node: dict[tuple[str, str], list[int]] = {}
        for site, answer in event.answers:
            by_node.setdefault((site, answer.node), []).append(answer.sample)
        return [
            Publish(Topic(site, Kind.ACK, node), AnswerAck(samples[start : start + CONFIRM_BATCH]))
            for (site, node), samples in by_node.items()
            for start in range(0, len(samples), CONFIRM_BATCH)
        ]


class CloudNode(CompositeMachine):
    """Fusion, by one bundle or during a roll-out by two, and a recorder in one process."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        share: str = "",
    ) -> None:
        self._site, self._node, self._timing, self._share = site, node, timing, share
        first = self.make_version(bundle, manifest)
        self.versions = VersionedMachine(first, hold_s=2 * timing.deadline_s)
        super().__init__(self.versions, StoreNode(site, share))

    def make_version(self, bundle: str, manifest: Manifest) -> Version[FusionNode]:
        """What this cloud does by a bundle, and the sections that it runs for it."""
        tier = CloudTier(manifest, self._share)
        fusion = FusionNode(self._site, self._node, bundle, manifest, self._timing, tier)
        return Version(bundle, fusion, (CLOUD,))
