"""The nodes of a hierarchy for which its lead edge waits."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.exits.hierarchy import CLOUD, Hierarchy
from ddnn.machines.membership import AnyOf, Membership
from ddnn.protocol.messages import Status


class HierarchyPresence:
    """The membership of devices, edges and the cloud.

    One live cloud suffices, whatever its name: CLOUD stands for all of them.
    """

    def __init__(self, node: str, hierarchy: Hierarchy) -> None:
        self._node = node
        self._nodes = (*hierarchy.devices, *(group.id for group in hierarchy.edges), CLOUD)
        self.disconnect()

    def disconnect(self) -> None:
        """Forget all nodes but this one: without the broker no other is known to be live."""
        self._clouds = AnyOf()
        self._membership = Membership(self._nodes)
        self._membership.note_report(self._node)

    @property
    def live(self) -> frozenset[str]:
        """The nodes that are online and report in time."""
        return self._membership.live

    @property
    def cloud_is_live(self) -> bool:
        return CLOUD in self._membership.live

    def take_status(self, site: str, node: str, status: Status) -> bool:
        """Take a birth, a stop or a Last Will; True where it changed who is live."""
        if status.role != "cloud":
            return node != CLOUD and self._membership.take_status(node, status)
        self._clouds.take_status(f"{site}/{node}", status)
        return self._membership.take_status(
            CLOUD, Status("cloud", 0, "online" if self._clouds else "lost")
        )

    def note_report(self, node: str) -> None:
        """Note that `node` reported in time."""
        self._membership.note_report(node)

    def note_misses(self, nodes: Iterable[str], now_s: float) -> None:
        """Note that a sample waited in vain for these nodes, of which only live ones count."""
        self._membership.note_misses(self.live.intersection(nodes), now_s)

    def probe_cloud(self, now_s: float) -> bool:
        """Whether to ask a cloud that stalled once more, without waiting for it."""
        return self._membership.probe(CLOUD, now_s)
