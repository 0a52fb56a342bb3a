"""What takes time in the simulation: a node's CPU, the cores that nodes share, and links.

Each is a queue without storage: it knows when it is free, and work that comes earlier waits.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import count

import msgspec

from ddnn.core.device import DeviceProfile
from ddnn.protocol.machine import SectionName
from ddnn.runtime.sections import INLINE_S


class VirtualTime:
    """A clock that jumps from one action to the next."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Call `action` at a virtual time; those of one time in the order of these calls."""
        heapq.heappush(self._queue, (time_s, next(self._order), action))

    def run(self, until_s: float) -> None:
        while self._queue and self._queue[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
        self.now_s = until_s


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a node's work takes.

    A section call takes `section_s[name]`; else its `section_flops[name]` divided by the device's
    flops/s, where both are known; else `any_section_s`. Messages and frames that come in take
    `receive_s` each, messages that go out `send_s`.
    """

    section_s: Mapping[SectionName, float] = {}
    section_flops: Mapping[SectionName, float] = {}
    any_section_s: float = 0.0005
    receive_s: float = 0.0
    send_s: float = 0.0

    def of_section(self, name: SectionName, device: DeviceProfile | None) -> float:
        if name in self.section_s:
            return self.section_s[name]
        if device is not None and name in self.section_flops:
            return self.section_flops[name] / device.flops_per_s
        return self.any_section_s


class Urgency(IntEnum):
    """Whose thread does the work, as in the loop: more urgent work interrupts less urgent work."""

    MACHINE = 0  # messages, and sections that are too fast to hand over
    OWN = 1  # this node's slow sections
    LENT = 2  # sections computed for others

    @classmethod
    def of_section(cls, seconds: float, lent: bool) -> Urgency:
        if seconds <= INLINE_S:
            return cls.MACHINE
        return cls.LENT if lent else cls.OWN


class Cores:
    """The cores of one computer, shared by the nodes that run on it; None: one for each node."""

    def __init__(self, number: int | None = None) -> None:
        self._free_s = [0.0] * (number or 0)

    def take(self, start_s: float, seconds: float) -> float:
        """When work ends that could start at `start_s`, on the core that is free first."""
        if not self._free_s or not seconds:
            return start_s + seconds
        end_s = max(start_s, self._free_s[0]) + seconds
        heapq.heapreplace(self._free_s, end_s)
        return end_s


class Lane:
    """One serial CPU. Work queues behind work of the same urgency, and is interrupted by work that
    is more urgent."""

    def __init__(self, time: VirtualTime, cores: Cores) -> None:
        self._time, self._cores = time, cores
        self._free_s = [0.0] * len(Urgency)
        self._postponed_s = [0.0] * len(Urgency)  # of all work of an urgency, in total

    def run(
        self, seconds: float, action: Callable[[], None], urgency: Urgency = Urgency.MACHINE
    ) -> None:
        """Call `action` once `seconds` of work are done; at once where nothing is to be done."""
        now_s = self._time.now_s
        start_s = max(now_s, *self._free_s[: urgency + 1])
        end_s = self._cores.take(start_s, seconds)
        if end_s <= now_s:
            action()
            return
        self._free_s[urgency] = end_s
        for lower in range(urgency + 1, len(Urgency)):
            if self._free_s[lower] > now_s:
                self._free_s[lower] += seconds
                self._postponed_s[lower] += seconds
        seen_s = self._postponed_s[urgency]

        def finish() -> None:
            nonlocal seen_s
            more_s, seen_s = self._postponed_s[urgency] - seen_s, self._postponed_s[urgency]
            if more_s > 0:
                self._time.at(self._time.now_s + more_s, finish)
            else:
                action()

        self._time.at(end_s, finish)


class Link:
    """One direction of a node's connection: messages queue, n bytes take n * 8 / bits_per_s."""

    def __init__(self, bits_per_s: float | None = None) -> None:
        """bits_per_s None: messages do not queue."""
        self._bits_per_s = math.inf if bits_per_s is None else bits_per_s
        self._free_s = 0.0

    def take(self, now_s: float, size_bytes: int) -> float:
        """When a message has passed that comes now."""
        self._free_s = max(now_s, self._free_s) + size_bytes * 8 / self._bits_per_s
        return self._free_s
