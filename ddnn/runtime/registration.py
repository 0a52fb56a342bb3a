"""The registration of a node at the broker: its name, retained status and announcements."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ddnn.protocol.machine import Forgotten
from ddnn.protocol.messages import Status
from ddnn.protocol.node_messages import NameClaim
from ddnn.protocol.topics import Kind
from ddnn.runtime.identity import Identity
from ddnn.runtime.name import NodeName
from ddnn.runtime.transport import Transport

log = logging.getLogger(__name__)

REPEAT_S = 5.0  # at least, between two repetitions of the status, which every node takes


class Registration:
    """Claims the node's name at every connect, and announces the node once it has the name."""

    def __init__(
        self,
        identity: Identity,
        transport: Transport,
        announcements: Sequence[tuple[str, bytes]],
        counts: Counter[str],
        started_s: float,
    ) -> None:
        """announcements: retained messages (topic, payload). counts: conflicts are added to them.
        started_s: monotonic time at which the process started."""
        self._identity, self._transport = identity, transport
        self._announcements, self._counts = announcements, counts
        self._name = NodeName(identity.site, identity.node, identity.instance, started_s)
        self._session = 0
        self._is_announced = False
        self._repeat_s = 0.0  # when the status is published again, at the next statistics

    @property
    def has_name(self) -> bool:
        return self._name.is_held

    @property
    def deadline_s(self) -> float | None:
        """When `tick` must be called at the latest (monotonic)."""
        return self._name.deadline_s

    def make_will(self, session: int) -> tuple[str, bytes]:
        topic, payload, *_ = self._identity.make_status("lost", session)
        return topic, payload

    def make_last_words(self) -> tuple[str, bytes] | None:
        """The status `stopped`; None where the name is another's."""
        if not self._name.is_held:
            return None
        topic, payload, *_ = self._identity.make_status("stopped", self._session)
        return topic, payload

    def connect(self, session: int) -> bool:
        """The broker accepted the connection; True where the node may be announced at once."""
        self._session = session
        now_s = time.monotonic()
        self._name.connect(now_s)
        if self._name.filters:
            self._transport.subscribe(self._name.filters)
        self._publish_claim(now_s)
        return self._name.is_held

    def disconnect(self) -> None:
        """The connection is gone."""
        self._name.disconnect()
        self._is_announced = False

    def tick(self, now_s: float) -> bool:
        """Take the time; True where the node may be announced now."""
        return self._name.tick(now_s)

    def announce(self) -> None:
        """Publish the node's status and its announcements."""
        self._is_announced = True
        self._publish_online()
        for topic, payload in self._announcements:
            self._transport.publish(topic, payload, 1, True)

    def repeat(self, now_s: float) -> None:
        """Publish the status again if that is due, for brokers that give nobody what they retain
        of filters with wildcards: RabbitMQ."""
        if self._is_announced and now_s >= self._repeat_s:
            self._publish_online()
            self._repeat_s = now_s + REPEAT_S

    def use_bundle(self, bundle: str) -> None:
        """Name this bundle in the status from now on."""
        self._identity = replace(self._identity, bundle=bundle)
        if self._is_announced:
            self._publish_online()

    def take_forgotten(self, forgotten: Forgotten) -> None:
        """A retained message was deleted at the broker: the own status is published again."""
        topic, own = forgotten.topic, self._identity
        is_own = (topic.site, topic.kind, topic.node) == (own.site, Kind.STATUS, own.node)
        if is_own and self._is_announced:
            self._publish_online()

    def take_status(self, status: Status) -> None:
        """Take a status of this node's name."""
        self._name.take_status(status)
        if self._is_announced and status.state != "online" and status.session != self._session:
            # The Will of an old connection came after this birth: correct the retained status.
            self._publish_online()

    def take_claim(self, claim: NameClaim) -> bool:
        """Take a claim of this node's name; True where the node may be announced now.

        Raises ConfigError where the name belongs to another process.
        """
        now_s = time.monotonic()
        if self._name.take_claim(claim, now_s):
            self._counts["name_conflicts"] += 1
            log.warning(
                "another process claims the name of %s: it must withdraw", self._identity.node
            )
            self._publish_claim(now_s)
            return False
        return self._name.is_held and not self._is_announced

    def _publish_online(self) -> None:
        self._transport.publish(*self._identity.make_status("online", self._session))

    def _publish_claim(self, now_s: float) -> None:
        claim = self._name.make_claim(now_s)
        if claim is not None:
            self._transport.publish(*claim)
