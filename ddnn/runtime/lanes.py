"""The parts of the simulation that take time: a node's CPU, cores that nodes share, and links.

Each keeps the time at which it is free; work that arrives earlier waits until then.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Mapping
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
        """Call `action` at a virtual time; actions of equal times run in the order of the calls."""
        heapq.heappush(self._queue, (time_s, next(self._order), action))

    def run(self, until_s: float) -> None:
        while self._queue and self._queue[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
        self.now_s = until_s


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that a node's work takes.

    A section call takes `section_s[name]`; else its `section_flops[name]` divided by the device's
    flops/s, where both are known; else `any_section_s`. A Call takes `find_call_s(job)`. Messages
    and frames that come in take `receive_s` each, messages that go out `send_s`.
    """

    section_s: Mapping[SectionName, float] = {}
    section_flops: Mapping[SectionName, float] = {}
    any_section_s: float = 0.0005
    find_call_s: Callable[[Hashable], float] = lambda job: 0.0
    receive_s: float = 0.0
    send_s: float = 0.0

    def find_section_s(self, name: SectionName, device: DeviceProfile | None) -> float:
        if name in self.section_s:
            return self.section_s[name]
        if device is not None and name in self.section_flops:
            return self.section_flops[name] / device.flops_per_s
        return self.any_section_s


class Urgency(IntEnum):
    """The thread that does the work, as in the loop: more urgent work interrupts the other."""

    MACHINE = 0  # messages, and sections that are too fast to hand over
    OWN = 1  # this node's slow sections
    LENT = 2  # sections computed for others

    @classmethod
    def of_section(cls, seconds: float, lent: bool) -> Urgency:
        if seconds <= INLINE_S:
            return cls.MACHINE
        return cls.LENT if lent else cls.OWN


class Cores:
    """The cores of one computer, which its nodes share; None: each node has a core of its own."""

    def __init__(self, number: int | None = None) -> None:
        self._free_s = [0.0] * (number or 0)

    def take(self, start_s: float, seconds: float) -> float:
        """Occupy the core that is free first, from `start_s` at the earliest; return the end."""
        if not self._free_s or not seconds:
            return start_s + seconds
        end_s = max(start_s, self._free_s[0]) + seconds
        heapq.heapreplace(self._free_s, end_s)
        return end_s


class Lane:
    """A serial CPU: work queues behind work of its urgency, and more urgent work interrupts it."""

    def __init__(self, time: VirtualTime, cores: Cores) -> None:
        self._time, self._cores = time, cores
        self._free_s = [0.0] * len(Urgency)
        self._postponed_s = [0.0] * len(Urgency)  # of all work of an urgency, in total

    def run(
        self, seconds: float, action: Callable[[], None], urgency: Urgency = Urgency.MACHINE
    ) -> None:
        """Call `action` once `seconds` of work are done; at once where this is 0 and it is free."""
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
        """Occupy the link by a message that arrives now; return when it has passed."""
        self._free_s = max(now_s, self._free_s) + size_bytes * 8 / self._bits_per_s
        return self._free_s
