"""The differences between the tiers that fuse features: an edge, and the cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from ddnn.core.section import Arrays
from ddnn.exits.manifest import Manifest, fuse_features, list_cloud_parts
from ddnn.protocol.messages import Features, TrafficBytes
from ddnn.protocol.topics import Kind, Topic, share_filter, topic_filter


class Tier(Protocol):
    """The nodes whose features are fused, the section that fuses them, and its receiver."""

    children: tuple[str, ...]  # the nodes whose features come in, in the order of fusion
    input: Kind  # of the children's messages
    section: str | None  # None: the features are sent up unchanged
    keeps_features: bool  # whether the section's features are kept until the next tier asks
    hears_escalations: bool  # whether it knows which samples' features are asked for

    def subscriptions(self, site: str) -> list[str]:
        """The filters of the messages that this tier reads besides presence."""
        ...

    def is_valid(self, child: str, message: Features) -> bool:
        """Whether the features are of this child's members, and of the right shape."""
        ...

    def measure_traffic(self, message: Features, wire_bytes: int) -> TrafficBytes:
        """The bytes that the devices sent for these features."""
        ...

    def fuse(self, messages: Mapping[str, Features]) -> Arrays:
        """The section's input from the features by child; absent ones are masked."""
        ...

    def make_scores_topic(self, site: str) -> Topic:
        """The topic of the section's scores."""
        ...


class EdgeTier:
    """Fuses the features of an edge's devices; sends up scores, and features on request."""

    input = Kind.FEATURES
    keeps_features = True

    def __init__(self, manifest: Manifest, node: str) -> None:
        self._manifest, self._node = manifest, node
        self.children = manifest.hierarchy.find_group(node).devices
        self.section = node if manifest.hierarchy.edge_section else None
        self._masks = {child: manifest.hierarchy.make_mask([child]) for child in self.children}
        # Without a local exit features are sent at once.
        self.hears_escalations = manifest.hierarchy.local_exit

    def subscriptions(self, site: str) -> list[str]:
        inputs = [topic_filter(self.input, site, child) for child in self.children]
        return [*inputs, topic_filter(Kind.ESCALATE, site)]

    def is_valid(self, child: str, message: Features) -> bool:
        manifest = self._manifest
        own = message.members == self._masks[child]
        return own and has_parts(message, manifest, 1, manifest.device_features)

    def measure_traffic(self, message: Features, wire_bytes: int) -> TrafficBytes:
        return sum(len(part.data) for part in message.parts), wire_bytes

    def fuse(self, messages: Mapping[str, Features]) -> Arrays:
        parts = [
            messages[child].parts[0].array() if child in messages else None
            for child in self.children
        ]
        return {"features": fuse_features(self._manifest, parts, self._manifest.device_features)}

    def make_scores_topic(self, site: str) -> Topic:
        return Topic(site, Kind.SCORES, self._node)


class CloudTier:
    """Fuses the features of the edges; sends the scores, the verdict, to the lead edge.

    An edge without a section sends the features of its devices, one part for each.
    """

    input = Kind.UPLINK
    section: str | None = "cloud"
    keeps_features = False
    hears_escalations = False

    def __init__(self, manifest: Manifest, share: str = "") -> None:
        """share: the group of cloud nodes that divide the samples among them. With several edges
        the parts of one sample must meet, so that every node of the group computes all of them."""
        hierarchy = manifest.hierarchy
        self._manifest, self._hierarchy = manifest, hierarchy
        self._share = share if len(hierarchy.edges) == 1 else ""
        self._parts, self._shape = list_cloud_parts(manifest)
        self.children = tuple(group.id for group in hierarchy.edges)

    def subscriptions(self, site: str) -> list[str]:
        return [share_filter(topic_filter(self.input, site), self._share)]

    def is_valid(self, child: str, message: Features) -> bool:
        allowed = self._hierarchy.make_mask(self._hierarchy.find_group(child).devices)
        count = 1 if self._hierarchy.edge_section else message.members.bit_count()
        own = message.members != 0 and message.members & ~allowed == 0
        return own and has_parts(message, self._manifest, count, self._shape)

    def measure_traffic(self, message: Features, wire_bytes: int) -> TrafficBytes:
        return message.traffic

    def fuse(self, messages: Mapping[str, Features]) -> Arrays:
        arrays: dict[str, NDArray[Any]] = {}
        for child, message in messages.items():
            has_section = self._hierarchy.edge_section
            names = (child,) if has_section else self._hierarchy.list_members(message.members)
            for name, part in zip(names, message.parts, strict=True):
                arrays[name] = part.array()
        parts = [arrays.get(name) for name in self._parts]
        return {"features": fuse_features(self._manifest, parts, self._shape)}

    def make_scores_topic(self, site: str) -> Topic:
        return Topic(site, Kind.VERDICT, self._hierarchy.lead)


def has_parts(message: Features, manifest: Manifest, count: int, shape: tuple[int, ...]) -> bool:
    """Whether the message has so many parts, each of this shape, as bits or as a raw image."""
    item = "bits" if manifest.hierarchy.device_section else "uint8"
    return len(message.parts) == count and all(
        part.shape == shape and part.type == item for part in message.parts
    )
