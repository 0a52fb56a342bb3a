"""The edge node: it fuses its devices' features and, if it leads, decides and answers."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.core.site_time import SiteTime
from ddnn.exits.exit_node import ExitNode
from ddnn.exits.fusion_node import FusionNode
from ddnn.exits.manifest import Manifest
from ddnn.exits.tiers import EdgeTier
from ddnn.exits.timing import Timing
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.outbox import Outbox
from ddnn.machines.time_server import TimeServer
from ddnn.protocol.machine import Effect, Event, Machine, Now, Publish, Received
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import Kind


class EdgeNode(CompositeMachine):
    """Combines up to four machines; their messages to each other stay within the process."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        pending: Iterable[Answer] = (),
        kept: SiteTime | None = None,
        audit_share: float = 0.0,
    ) -> None:
        """pending: answers that are not confirmed. kept: the site's time before a restart.

        audit_share: of the samples that the local exit is sure of and that go up all the same
        """
        self.node = node
        self.outbox = Outbox(site, node, pending)
        self.fusion = FusionNode(site, node, bundle, manifest, timing, EdgeTier(manifest, node))
        self.exits: ExitNode | None = None
        lead: list[Machine] = []
        if node == manifest.hierarchy.lead:
            time_server = TimeServer(site, kept)
            self.exits = ExitNode(
                site, node, bundle, manifest, timing, self.outbox, time_server, audit_share
            )
            lead = [time_server, self.exits]
        super().__init__(*lead, self.fusion, self.outbox)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """Give the event to each part, then the messages that one part publishes for another."""
        queue: list[Event] = [event]
        effects: list[Effect] = []
        while queue:
            current = queue.pop(0)
            for part in self._parts:
                for effect in part.handle(current, now):
                    if isinstance(effect, Publish):
                        kind = effect.topic.kind
                        own_scores = kind is Kind.SCORES and self.exits is not None
                        if own_scores or kind is Kind.ESCALATE:
                            queue.append(Received(effect.topic, effect.message))
                        if own_scores:
                            continue
                    effects.append(effect)
        return effects
