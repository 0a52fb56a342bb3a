"""The edge node: it fuses its devices' features and, if it leads, decides and answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ddnn.core.site_time import SiteTime
from ddnn.exits.exit_node import ExitNode
from ddnn.exits.fusion_node import FusionNode
from ddnn.exits.manifest import Manifest
from ddnn.exits.tiers import EdgeTier
from ddnn.exits.timing import Timing
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.outbox import Outbox
from ddnn.machines.pace import PaceControl
from ddnn.machines.time_server import TimeServer
from ddnn.machines.versioned import Version, VersionedMachine
from ddnn.protocol.machine import Effect, Event, Machine, Now, Publish, Received
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import Kind


class EdgeExit(CompositeMachine):
    """What an edge does by one bundle; what its two machines say to each other stays within."""

    def __init__(self, exits: ExitNode | None, fusion: FusionNode) -> None:
        """exits: of the lead edge."""
        self.exits, self.fusion = exits, fusion
        super().__init__(*([exits] if exits else []), fusion)

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


class EdgeNode(CompositeMachine):
    """The edge by one bundle or, during a roll-out, by two: `versions` takes further ones.

    Time, pace and outbox are the node's.
    """

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
        self._site, self._node, self._timing = site, node, timing
        self._audit_share = audit_share
        self.outbox = Outbox(site, node, pending)
        leads = node == manifest.hierarchy.lead
        self._time_server = TimeServer(site, kept) if leads else None
        self._pace = PaceControl(timing.edge_s)
        first = self.make_version(bundle, manifest)
        self.versions = VersionedMachine(first, hold_s=2 * timing.deadline_s)
        shared: list[Machine] = [self._time_server] if self._time_server else []
        super().__init__(*shared, self.versions, self.outbox)

    def make_version(self, bundle: str, manifest: Manifest) -> Version[EdgeExit]:
        """What this edge does by a bundle, and the sections that it runs for it."""
        site, node, timing = self._site, self._node, self._timing
        fusion = FusionNode(site, node, bundle, manifest, timing, EdgeTier(manifest, node))
        exits = None
        if node == manifest.hierarchy.lead:
            exits = ExitNode(
                site,
                node,
                bundle,
                manifest,
                timing,
                self.outbox,
                self._pace,
                self._time_server,
                self._audit_share,
            )
        return Version(bundle, EdgeExit(exits, fusion), list_edge_sections(manifest, node))


def list_edge_sections(manifest: Manifest, node: str) -> Sequence[str]:
    """The sections that an edge runs."""
    return (node,) if manifest.hierarchy.edge_section else ()
