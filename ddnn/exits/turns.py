"""Which device answers a sample where the edge is silent: one, and if it is silent too, the next.

All devices know the same order without a message: by rendezvous hashing, a hash of the sample and
the device's name. So the samples of a while are spread evenly over the devices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ddnn.exits.timing import Timing
from ddnn.machines.membership import Membership
from ddnn.protocol.messages import Status


class Turns:
    """The turns of one device among those that are present."""

    def __init__(self, node: str, devices: Iterable[str], timing: Timing) -> None:
        self._node, self._devices, self._timing = node, tuple(devices), timing
        self.disconnect()

    def disconnect(self) -> None:
        """Forget who is present: without the broker nobody is heard."""
        self._membership = Membership(self._devices)
        self._membership.note_report(self._node)

    def take_status(self, node: str, status: Status) -> None:
        if node != self._node:
            self._membership.take_status(node, status)

    def is_before(self, sample: int, device: str) -> bool:
        """Whether a device of the hierarchy answers a sample before this one."""
        return device in self._devices and _hash(sample, device) < _hash(sample, self._node)

    def find_wait_s(self, sample: int) -> float:
        """How long to wait for other devices where the edge is known to be away."""
        turn = self._find_turn(sample)
        by_s = self._find_limit_s(turn) - self._timing.device_s
        return min(turn * self._timing.window_s, by_s) if turn else 0.0

    def find_answer_by_s(self, sample: int, can_answer: bool) -> float:
        """When to answer, after the capture, where no edge did in time.

        can_answer: False where the device has no scores, so that any other device is better.
        """
        turn = self._find_turn(sample) if can_answer else len(self._membership.live) - 1
        return self._find_limit_s(turn)

    def _find_limit_s(self, turn: int) -> float:
        """Each turn takes half of the time that is left until the deadline."""
        left_s = self._timing.deadline_s - self._timing.device_s
        return self._timing.device_s + left_s * (1 - 0.5**turn)

    def _find_turn(self, sample: int) -> int:
        """How many present devices come before this one."""
        present = self._membership.live
        if len(present) == 1:
            return 0
        own = _hash(sample, self._node)
        return sum(_hash(sample, node) < own for node in present)


def _hash(sample: int, node: str) -> bytes:
    return hashlib.blake2b(f"{sample}/{node}".encode(), digest_size=8).digest()
