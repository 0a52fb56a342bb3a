"""The worker's machine: it offers itself, and its member follows the central node's commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ddnn.core.device import DeviceProfile
from ddnn.pipeline.member import Member, State
from ddnn.pipeline.stage import FindFactory
from ddnn.protocol.machine import Call, Connected, Effect, Event, Log, Now, Publish, Received
from ddnn.protocol.messages import Status
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter
from ddnn.protocol.train_messages import TrainOffer

INBOUND = (Kind.TRAIN_COMMAND, Kind.TRAIN_FLOW, Kind.TRAIN_FETCH, Kind.TRAIN_PART)


class TrainWorker:
    """Trains a part of a network for whichever central node asks. See ddnn.protocol.machine.

    To leave in order, its process publishes a TrainOffer with `leaving`; `is_released` is true once
    the other nodes do without it.
    """

    def __init__(
        self,
        site: str,
        node: str,
        network: str,
        find_factory: FindFactory,
        incarnation: int,
        profile: DeviceProfile | None = None,
    ) -> None:
        """network: the only one that it trains; empty: whichever a central node describes.
        incarnation: another number after each start.
        """
        self.site, self.node = site, node
        self.member = Member(site, node, find_factory, incarnation)
        self._offer = TrainOffer(network, incarnation, False, profile)

    @property
    def counts(self) -> Mapping[str, int]:
        return self.member.counts

    @property
    def gauges(self) -> Mapping[str, float]:
        return self.member.gauges

    @property
    def is_released(self) -> bool:
        return self._offer.leaving and not self.is_at_work

    @property
    def is_at_work(self) -> bool:
        """Whether this node has a part in a training."""
        return self.member.state is not State.IDLE

    @property
    def is_awaited(self) -> bool:
        """Whether a central node that is there counts on this node's part."""
        return self.is_at_work and not self.member.is_central_lost

    def subscriptions(self) -> list[str]:
        return [
            *(topic_filter(kind, self.site, self.node) for kind in INBOUND),
            topic_filter(Kind.TRAIN_OFFER, self.site, self.node),
            presence_filters(self.site)[0],
        ]

    def deadline_s(self) -> float | None:
        return self.member.deadline_s()

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Connected():
                effects.append(Publish(Topic(self.site, Kind.TRAIN_OFFER, self.node), self._offer))
            case Received(Topic(_, Kind.TRAIN_OFFER, self.node), TrainOffer(leaving=True) as offer):
                if offer.incarnation == self._offer.incarnation:
                    self._offer = offer
            case Received(Topic(_, Kind.STATUS, self.member.central), Status() as status):
                effects = self._watch_central(status)
        for effect in self.member.handle(event, now):
            # This node trains for others: its own work comes first.
            effects.append(replace(effect, lent=True) if isinstance(effect, Call) else effect)
        return effects

    def _watch_central(self, status: Status) -> list[Effect]:
        lost = status.state != "online"
        if lost == self.member.is_central_lost or self.member.state is State.IDLE:
            return []
        self.member.is_central_lost = lost
        central = self.member.central
        if not lost:
            return [Log("info", "%s is back: waiting for its commands", (central,))]
        self.member.counts["central_lost"] = self.member.counts.get("central_lost", 0) + 1
        text = "%s, which drives the training, is lost; this node keeps its layers until it is back"
        return [Log("error", text, (central,))]
