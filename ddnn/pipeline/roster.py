"""The nodes that offer to train, as the central node knows them, by id."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ddnn.core.device import DeviceProfile
from ddnn.pipeline.capacity import measure_capacity
from ddnn.pipeline.order import Devices
from ddnn.pipeline.partition import Memory
from ddnn.pipeline.stage import LayerProfile
from ddnn.protocol.messages import Status
from ddnn.protocol.train_messages import TrainOffer, TrainReport

UNKNOWN_RATE = 1e9  # bytes/s of a link that was not measured: it does not limit the first cut
STATE_COPIES = 6  # live, in flight, two snapshots of the node's own, two of the stage before
GLOBAL_COPIES = 3  # of all layers at the central node: the newest, the one before, one that comes


@dataclass(slots=True)
class Node:
    """What is known of a node. capacity, rate_bytes_per_s: measured; None: not yet."""

    offer: TrainOffer | None = None
    online: bool = False
    session: int = 0
    silent: bool = False  # it did not answer in time; it may be back
    refused: int | None = None  # the incarnation that failed at the work
    capacity: float | None = None
    rate_bytes_per_s: float | None = None
    batch_s: float = 0.0  # of its layers in the latest report

    @property
    def is_usable(self) -> bool:
        offer = self.offer
        return (
            offer is not None
            and self.online
            and not self.silent
            and self.refused != offer.incarnation
        )


class Roster:
    """The central node and its workers. `own` is the central node's id."""

    def __init__(self, own: str, network: str, profile: DeviceProfile | None) -> None:
        self.own, self.network = own, network
        self.nodes: dict[str, Node] = {}
        self.central = Node(TrainOffer(network, 0, False, profile), True)

    def get(self, name: str) -> Node:
        return self.central if name == self.own else self.nodes.setdefault(name, Node())

    def list_usable(self, leaving: bool = True) -> list[str]:
        """The central node first, then the workers that can be used, by id. leaving: also those
        that want to leave, whose layers can still be fetched."""
        return [self.own] + [
            name
            for name, node in sorted(self.nodes.items())
            if node.is_usable and node.offer is not None and (leaving or not node.offer.leaving)
        ]

    def list_silent(self) -> list[str]:
        """The workers that are online and did not answer in time, by id."""
        return [
            name
            for name, node in sorted(self.nodes.items())
            if node.silent
            and node.online
            and node.offer is not None
            and node.refused != node.offer.incarnation
        ]

    def list_online(self) -> list[str]:
        """The workers that are online, be they of use or not, by id."""
        return [name for name, node in sorted(self.nodes.items()) if node.online and node.offer]

    # -------------------------------------------------------------------- presence

    def take_offer(self, name: str, offer: TrainOffer) -> bool:
        """Take an offer; True where the node has restarted and lost what it held."""
        if name == self.own or offer.network not in ("", self.network):
            return False
        node = self.get(name)
        restarted = node.offer is not None and node.offer.incarnation != offer.incarnation
        node.offer, node.silent = offer, False
        if restarted:  # what was measured is of another time, and of a process that is gone
            node.capacity = node.rate_bytes_per_s = None
        return restarted

    def take_status(self, name: str, status: Status) -> bool:
        """Take a birth, a stop or a Last Will; True where the node is lost by it.

        A Will of another session than the present one is of an earlier connection.
        """
        if name == self.own or (name not in self.nodes and status.state != "online"):
            return False
        node, online = self.get(name), status.state == "online"
        if not online and node.online and node.session != status.session:
            return False
        if online and node.online and node.session == status.session:
            return False  # it is repeated with the statistics
        lost = node.online and not online
        node.online, node.session = online, status.session
        node.silent = node.silent and not online
        return lost

    def note_silent(self, names: Collection[str]) -> None:
        for name in names:
            if name != self.own:
                self.get(name).silent = True

    def note_alive(self, name: str) -> bool:
        """A node has answered; True where it was taken for silent."""
        node = self.get(name)
        was_silent, node.silent = node.silent, False
        return was_silent

    def refuse(self, name: str) -> None:
        """The node failed at its work: do without it until it restarts."""
        node = self.get(name)
        node.refused = node.offer.incarnation if node.offer is not None else None

    # ----------------------------------------------------------------- measurement

    def take_report(
        self, report: TrainReport, start: int, stop: int, layer_times_s: Sequence[float]
    ) -> None:
        """Note how long a node takes for its layers, and the rate of its link."""
        node = self.get(report.sender)
        node.batch_s = seconds = report.forward_s + report.backward_s
        if seconds > 0 and sum(layer_times_s[start:stop]) > 0:
            node.capacity = measure_capacity(seconds, layer_times_s, start, stop)
        if report.rate_bytes_per_s > 0:
            node.rate_bytes_per_s = report.rate_bytes_per_s

    def describe(
        self,
        names: Sequence[str],
        profiles: Sequence[LayerProfile],
        *,
        equal: bool,
        deep: bool = False,
    ) -> Devices:
        """The devices of these nodes as the planner needs them.

        equal: all capacities are 1. deep: see Settings.

        Their memory has to hold copies of states and the outputs of batches in flight; what a
        layer's own computation takes besides is not known.
        """
        in_flight = 2 * len(names) - 1 if deep else len(names)
        copies = GLOBAL_COPIES * sum(profile.state_bytes for profile in profiles)
        limits = [
            limit - copies if limit is not None and name == self.own else limit
            for name, limit in ((name, self._memory_bytes(name)) for name in names)
        ]
        layer_bytes = [
            STATE_COPIES * profile.state_bytes + in_flight * profile.output_bytes
            for profile in profiles
        ]
        return Devices(
            [profile.forward_s + profile.backward_s for profile in profiles],
            [profile.output_bytes for profile in profiles],
            [1.0 if equal else self._capacity(name) for name in names],
            [self._rate(name) for name in names],
            Memory(limits, [layer_bytes] * len(names)) if limits != [None] * len(limits) else None,
        )

    def _profile(self, name: str) -> DeviceProfile | None:
        offer = self.get(name).offer
        return None if offer is None else offer.profile

    def _capacity(self, name: str) -> float:
        """Measured; else by the speeds that the nodes announce; else as the central node."""
        measured = self.get(name).capacity
        if measured is not None:
            return measured
        own, other = self._profile(self.own), self._profile(name)
        return own.flops_per_s / other.flops_per_s if own and other else 1.0

    def _rate(self, name: str) -> float:
        measured, profile = self.get(name).rate_bytes_per_s, self._profile(name)
        declared = profile.uplink_bits_per_s if profile is not None else None
        return measured or (declared / 8 if declared else UNKNOWN_RATE)

    def _memory_bytes(self, name: str) -> float | None:
        profile = self._profile(name)
        return None if profile is None else profile.memory_bytes
