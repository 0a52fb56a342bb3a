"""When to connect to a broker again, at which address, and with which version of MQTT."""

from __future__ import annotations

import random
from collections.abc import Sequence

from paho.mqtt.enums import MQTTProtocolVersion

BACKOFF_S = (0.2, 5.0)
STEADY_S = 3.0  # a connection that lasted so long was a good one


class RetrySchedule:
    """When to connect again, at which address, and with which protocol version.

    The interval doubles with each failure from `BACKOFF_S[0]` to `BACKOFF_S[1]`, and begins again
    after a connection that lasted: one that is accepted and ends at once is no success. Jitter
    takes up to half of it, so that nodes do not return all at once. A broker that refused the
    connection or did not answer is tried with the next version; after any other failure, and once
    all versions were refused, it is the turn of the next address.
    """

    def __init__(
        self,
        versions: Sequence[MQTTProtocolVersion],
        random: random.Random,
        addresses: int = 1,
    ) -> None:
        """addresses: the number of the broker's addresses."""
        self._versions, self._random, self._addresses = versions, random, addresses
        self._turn = 0
        self._address = 0
        self._accepted_s: float | None = None
        self._interval_s = BACKOFF_S[0]
        self.due_s = 0.0

    @property
    def version(self) -> MQTTProtocolVersion:
        return self._versions[self._turn % len(self._versions)]

    @property
    def address(self) -> int:
        """The index of the address to try."""
        return self._address % self._addresses

    def note_success(self, now_s: float) -> None:
        """The broker accepted a connection."""
        self._accepted_s = now_s

    def note_failure(self, now_s: float, *, refused: bool = False) -> None:
        """A connection ended, or none came about. refused: by a broker that was reached."""
        if self._accepted_s is not None and now_s - self._accepted_s >= STEADY_S:
            self._interval_s = BACKOFF_S[0]
        self._accepted_s = None
        self._turn += refused
        if not refused or self._turn % len(self._versions) == 0:
            self._address += 1
        self.due_s = now_s + self._interval_s * self._random.uniform(0.5, 1.0)
        self._interval_s = min(2 * self._interval_s, BACKOFF_S[1])
