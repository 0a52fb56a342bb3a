"""The latest answer of a site for those who want a state and not every sample: Home Assistant.

Wraps the machine that answers. What it says changes at most once a second; while answers continue
but nothing changes it is repeated, so that a reader can distinguish a state from a silent site.
"""

from __future__ import annotations

from ddnn.machines.composite import WrappedMachine
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Machine,
    Now,
    Publish,
    find_earliest,
)
from ddnn.protocol.messages import Answer
from ddnn.protocol.node_messages import CloudReach, Latest
from ddnn.protocol.topics import Kind, Topic

PERIOD_S = 1.0
REPEAT_S = 10.0


class LatestAnswer(WrappedMachine):
    """The machine, which also publishes its latest answer.

    With `reach` it publishes at every change whether the cloud is online, as its gauge says.
    """

    def __init__(self, machine: Machine, site: str, node: str, *, reach: bool = False) -> None:
        super().__init__(machine)
        self._site, self._node, self._reach = site, node, reach
        self._connected = False
        self._wanted: Latest | None = None  # of the last answer
        self._fresh = False  # whether an answer has come since the last message
        self._said: Latest | None = None
        self._said_s = -REPEAT_S
        self._cloud: bool | None = None  # as it was published
        self._look_s = 0.0  # when the gauge is read again

    def deadline_s(self) -> float | None:
        return find_earliest((super().deadline_s(), self._find_due_s()))

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects = super().handle(event, now)
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, Answer):
                self._take(effect.message)
        if isinstance(event, Connected):
            self._connected, self._cloud, self._said = True, None, None
        elif isinstance(event, Disconnected):
            self._connected = False
        if not self._connected:
            return effects
        return [*effects, *self._publish_latest(now), *self._publish_reach(now)]

    def _take(self, answer: Answer) -> None:
        if answer.late:
            return
        percent = round(100 * max(answer.probabilities, default=0.0))
        self._wanted, self._fresh = Latest(answer.label, answer.exit, percent), True

    def _find_due_s(self) -> float | None:
        """When the latest answer is to be published; None where it need not be."""
        if not (self._connected and self._fresh):
            return None
        return self._said_s + (PERIOD_S if self._wanted != self._said else REPEAT_S)

    def _publish_latest(self, now: Now) -> list[Effect]:
        due_s = self._find_due_s()
        if due_s is None or self._wanted is None or now.monotonic_s < due_s:
            return []
        self._said, self._said_s, self._fresh = self._wanted, now.monotonic_s, False
        return [Publish(Topic(self._site, Kind.LATEST, self._node), self._wanted)]

    def _publish_reach(self, now: Now) -> list[Effect]:
        if not self._reach or (self._cloud is not None and now.monotonic_s < self._look_s):
            return []
        self._look_s = now.monotonic_s + PERIOD_S
        cloud = self._machine.gauges.get("cloud_up", 0.0) > 0
        if cloud == self._cloud:
            return []
        self._cloud = cloud
        return [Publish(Topic(self._site, Kind.REACH, self._node), CloudReach(cloud))]
