"""A tier's machine, the same for an edge and for the cloud: gather features, fuse, run, report.

    children's features -> all live ones, or the window -> section -> scores up or down,
                                                              features kept for the next tier
Without a section of its own (configurations a to c) the edge hands the features on as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import Arrays
from ddnn.exits.manifest import Manifest, cloud_parts, fuse_features
from ddnn.exits.timing import Timing
from ddnn.machines.jobs import Jobs
from ddnn.machines.membership import Membership
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.messages import Escalate, Features, Scores, Status, Tensor, add_traffic
from ddnn.protocol.topics import Kind, Topic, shared, topic_filter

MAX_SITES = 4096  # whose presence is remembered; the oldest is forgotten beyond it

Key = tuple[str, int]  # site, sample


class SectionJob(NamedTuple):
    """The token of a Compute effect: a section on a sample of a site."""

    section: str
    site: str
    sample: int


class _Gathering:
    """One sample's features as they come in."""

    __slots__ = ("captured_at_s", "features", "label", "mask", "messages", "running", "traffic")

    def __init__(self) -> None:
        self.messages: dict[str, Features] = {}
        self.traffic = (0, 0)
        self.mask = 0
        self.captured_at_s = 0.0
        self.label: int | None = None
        self.running = False
        self.features: NDArray[Any] | None = None  # the section's, kept for the next tier


class FusionNode:
    """Gathers from `children`, runs section `section` (or none), for one site or several."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        *,
        cloud: bool,
        share: str = "",
    ) -> None:
        """`share`: the group of cloud nodes that divide the samples among them. With several edges
        the parts of one sample must meet, so that every node of the group computes all of them."""
        hierarchy = manifest.hierarchy
        self.site, self.node, self.bundle = site, node, bundle
        self.manifest, self.timing, self.cloud = manifest, timing, cloud
        self._share = share if len(hierarchy.edges) == 1 else ""
        self.counts: dict[str, int] = {}
        self.has_section = cloud or hierarchy.edge_section
        self._children = (
            tuple(group.id for group in hierarchy.edges) if cloud else hierarchy.group(node).devices
        )
        self._input = Kind.UPLINK if cloud else Kind.FEATURES
        # who is worth waiting for, by site (the cloud serves several)
        self._membership: dict[str, Membership] = {}
        self._jobs: Jobs[Key, _Gathering] = Jobs()

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    @property
    def section(self) -> str:
        return "cloud" if self.cloud else self.node

    def subscriptions(self) -> list[str]:
        inputs = (
            [shared(topic_filter(self._input, self.site), self._share)]
            if self.cloud
            else [topic_filter(self._input, self.site, child) for child in self._children]
        )
        escalate = [] if self.cloud else [topic_filter(Kind.ESCALATE, self.site)]
        return [*inputs, *escalate, topic_filter(Kind.STATUS, self.site)]

    def deadline_s(self) -> float | None:
        return self._jobs.next_due_s()

    def membership(self, site: str) -> Membership:
        if site not in self._membership:
            if len(self._membership) >= MAX_SITES:
                del self._membership[next(iter(self._membership))]
            self._membership[site] = Membership(self._children)
        return self._membership[site]

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(topic, Features() as message) if topic.kind is self._input:
                effects = self._gather(topic, message, event.wire_bytes, now)
            case Received(topic, Escalate() as escalate):
                effects = self._escalated(topic.site, escalate, now)
            case Received(topic, Status() as status) if topic.node in self._children:
                if self.membership(topic.site).status(topic.node, status):
                    effects = self._all_ready(topic.site, now)
            case Computed(SectionJob(self.section, site, sample), outputs):
                effects = self._computed((site, sample), outputs)
            case Disconnected():
                self._membership.clear()
        for key in self._jobs.due(now.monotonic_s):
            effects += self._window_closed(key, now)
        return effects

    # ------------------------------------------------------------------ gather

    def _open(self, key: Key, now: Now) -> _Gathering:
        gathering = _Gathering()
        due_s = now.monotonic_s + self.timing.window_s
        if self._jobs.open(key, gathering, now.monotonic_s, due_s) is not None:
            self._count("evicted")
        return gathering

    def _gather(self, topic: Topic, message: Features, wire_bytes: int, now: Now) -> list[Effect]:
        key = (topic.site, message.sample)
        if topic.node not in self._children or not self._fits(topic.node, message):
            self._count("features_refused")
            return []
        opened_s = self._jobs.opened_s(key)
        if opened_s is None or now.monotonic_s <= opened_s + self.timing.window_s:
            self.membership(topic.site).reported(topic.node)
        gathering = self._jobs.get(key)
        if gathering is None:
            if self._jobs.is_closed(key):
                self._count("features_late")
                return []
            gathering = self._open(key, now)
        if gathering.running or topic.node in gathering.messages:
            self._count("features_late")
            return []
        gathering.messages[topic.node] = message
        gathering.mask |= message.members
        gathering.captured_at_s = message.captured_at_s
        if message.label is not None:
            gathering.label = max(message.label, -1 if gathering.label is None else gathering.label)
        traffic = message.traffic
        if not self.cloud:
            traffic = (sum(len(part.data) for part in message.parts), wire_bytes)
        gathering.traffic = add_traffic(gathering.traffic, traffic)
        return self._run_if_ready(key, gathering, now)

    def _fits(self, child: str, message: Features) -> bool:
        """Whether these features are of our bundle, of this child, and of the right shape."""
        hierarchy = self.manifest.hierarchy
        if message.bundle != self.bundle:
            self._count("wrong_bundle")
            return False
        if not self.cloud:
            allowed, members = hierarchy.mask([child]), 1
            shape = self.manifest.device_features
        else:
            allowed = hierarchy.mask(hierarchy.group(child).devices)
            _, shape = cloud_parts(self.manifest)
            members = 1 if hierarchy.edge_section else message.members.bit_count()
        item = "bits" if hierarchy.device_section else "uint8"
        return (
            message.members & ~allowed == 0
            and message.members != 0
            and len(message.parts) == members
            and all(part.shape == shape and part.type == item for part in message.parts)
        )

    def _run_if_ready(self, key: Key, gathering: _Gathering, now: Now) -> list[Effect]:
        waiting = self.membership(key[0]).live - gathering.messages.keys()
        if waiting or not gathering.messages or gathering.running:
            return []
        return self._run(key, gathering, now)

    def _all_ready(self, site: str, now: Now) -> list[Effect]:
        """A child went away: samples that waited only for it need not wait any more."""
        effects: list[Effect] = []
        for key, gathering in self._jobs.items():
            if key[0] == site:
                effects += self._run_if_ready(key, gathering, now)
        return effects

    def _window_closed(self, key: Key, now: Now) -> list[Effect]:
        gathering = self._jobs.get(key)
        if gathering is None or gathering.running:
            if gathering is not None:
                self._jobs.close(key)
            return []
        if not gathering.messages:
            self._jobs.close(key)
            return []
        membership = self.membership(key[0])
        absent = membership.live - gathering.messages.keys()
        membership.missed(absent, now.monotonic_s)
        return self._run(key, gathering, now)

    # -------------------------------------------------------------------- work

    def _run(self, key: Key, gathering: _Gathering, now: Now) -> list[Effect]:
        gathering.running = True
        self._jobs.reschedule(key, now.monotonic_s + self.timing.deadline_s)
        if not self.has_section:
            parts = tuple(
                part
                for child in self._children
                if child in gathering.messages
                for part in gathering.messages[child].parts
            )
            self._jobs.close(key)
            return [self._uplink(key, gathering, parts)]
        if self.cloud:
            nodes, shape = cloud_parts(self.manifest)
        else:
            nodes, shape = self._children, self.manifest.device_features
        arrays: dict[str, NDArray[Any]] = {}
        for child, message in gathering.messages.items():
            named = (
                self.manifest.hierarchy.members(message.members)
                if self.cloud and not self.manifest.hierarchy.edge_section
                else (child,)
            )
            arrays.update(
                (name, part.array()) for name, part in zip(named, message.parts, strict=True)
            )
        fused = fuse_features(self.manifest, [arrays.get(node) for node in nodes], shape)
        return [Compute(SectionJob(self.section, *key), self.section, {"features": fused})]

    def _computed(self, key: Key, outputs: Arrays | None) -> list[Effect]:
        gathering = self._jobs.get(key)
        if gathering is None:
            return []
        if outputs is None or not np.isfinite(outputs["scores"]).all():
            self._count("section_failed")
            self._jobs.close(key)
            return []
        if self.cloud:
            self._jobs.close(key)
        else:
            gathering.features = outputs["features"]
        message = Scores(
            1,
            key[1],
            self.bundle,
            gathering.mask,
            gathering.captured_at_s,
            Tensor.of(outputs["scores"]),
            gathering.label,
            gathering.traffic,
        )
        if self.cloud:
            return [Publish(Topic(key[0], Kind.VERDICT, self.manifest.hierarchy.lead), message)]
        return [Publish(Topic(key[0], Kind.SCORES, self.node), message)]

    def _escalated(self, site: str, escalate: Escalate, now: Now) -> list[Effect]:
        key = (site, escalate.sample)
        if escalate.bundle != self.bundle or self._jobs.is_closed(key):
            return []
        gathering = self._jobs.get(key)
        if escalate.tier == "local":
            if gathering is None:
                self._open(key, now)
            return []
        if gathering is None or gathering.features is None:
            return []
        self._jobs.close(key)
        part = Tensor.of(np.asarray(gathering.features), bits=True)
        return [self._uplink(key, gathering, (part,))]

    def _uplink(self, key: Key, gathering: _Gathering, parts: tuple[Tensor, ...]) -> Publish:
        return Publish(
            Topic(key[0], Kind.UPLINK, self.node),
            Features(
                1,
                key[1],
                self.bundle,
                gathering.mask,
                gathering.captured_at_s,
                parts,
                gathering.label,
                gathering.traffic,
            ),
        )

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
