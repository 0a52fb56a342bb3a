"""The central node's machine: the driver of the training and this node's own member.

What the driver and the member say to each other stays in this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ddnn.core.device import DeviceProfile
from ddnn.pipeline.collector import Collector
from ddnn.pipeline.driver import Driver
from ddnn.pipeline.driver_states import State
from ddnn.pipeline.member import Member
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.runner import Data
from ddnn.pipeline.settings import Checkpoint, Settings
from ddnn.pipeline.sources import Origin
from ddnn.pipeline.stage import StageFactory
from ddnn.pipeline.view import make_state
from ddnn.pipeline.worker_node import INBOUND
from ddnn.protocol.machine import Effect, Event, Now, Publish, Received, find_earliest
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter
from ddnn.protocol.train_messages import TrainState

VIEW_S = 1.0  # between two states that are published
OWN = (*INBOUND, Kind.TRAIN_REPLY, Kind.TRAIN_REPORT)


class TrainCentral:
    """Holds the data, drives the training and computes the first layers itself."""

    def __init__(
        self,
        site: str,
        node: str,
        run: str,
        network: str,
        factory: StageFactory,
        data: Data,
        settings: Settings,
        *,
        save: Callable[[Checkpoint], None] | None = None,
        checkpoint: Checkpoint | None = None,
        profile: DeviceProfile | None = None,
    ) -> None:
        """network: its description, by which workers build their layers. run: names this training;
        that of the checkpoint where it goes on. data: the batch of a number, the same at every
        call. save: writes a checkpoint, in another thread.
        """
        self.site, self.node = site, node
        self.member = Member(site, node, lambda network: factory, 0, data)
        if checkpoint is not None:
            run = checkpoint.run
            for layer, blob in checkpoint.layers.items():
                self.member.exchange.store.add(layer, checkpoint.stamp, Origin.GLOBAL, blob)
        self.member.run, self.member.central = run, node
        self.driver = Driver(
            site,
            run,
            self.member,
            Roster(node, network, profile),
            Collector(run, self.member.exchange, save),
            settings,
            lambda: list(factory.profile(*data(0))),
            checkpoint.stamp.term if checkpoint is not None else 0,
        )
        self.view: TrainState = make_state(self.driver)  # any thread may read it
        self._view_due_s = 0.0

    @property
    def counts(self) -> dict[str, int]:
        return {**self.member.counts, "train_failures": self.driver.progress.failures}

    @property
    def gauges(self) -> dict[str, float]:
        return {**self.member.gauges, "train_term": float(self.driver.term)}

    @property
    def is_over(self) -> bool:
        return self.driver.state in (State.ENDED, State.FAILED)

    def subscriptions(self) -> list[str]:
        return [
            *(topic_filter(kind, self.site, self.node) for kind in OWN),
            topic_filter(Kind.TRAIN_OFFER, self.site),
            presence_filters(self.site)[0],
        ]

    def deadline_s(self) -> float | None:
        times = (self.member.deadline_s(), self.driver.deadline_s())
        return find_earliest(times)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        events: deque[Event] = deque([event])
        while events:
            one = events.popleft()
            for effect in (*self.member.handle(one, now), *self.driver.handle(one, now)):
                match effect:
                    case Publish(Topic(_, kind, self.node) as topic, message) if kind in OWN:
                        events.append(Received(topic, message))
                    case _:
                        effects.append(effect)
        return effects + self._show(now)

    def _show(self, now: Now) -> list[Effect]:
        """Publish the state where it has changed, or a while has passed."""
        is_changed = self.view.state != self.driver.state.name
        if now.monotonic_s < self._view_due_s and not is_changed:
            return []
        self._view_due_s = now.monotonic_s + VIEW_S
        self.view = make_state(self.driver)
        return [Publish(Topic(self.site, Kind.TRAIN_STATE, self.node), self.view)]
