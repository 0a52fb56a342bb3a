"""The cost of every group of devices as a function of how many filters it holds.

Groups are bit masks of devices: 0b101 holds the first and the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.students.latency import filter_latency_s, fits, fixed_latency_s, group_latency_s
from ddnn.students.outage import group_outage, meets_bound, p_all, read_outage
from ddnn.students.types import FloatArray, IntArray, Objective, StudentType

CACHED_VALUES = 1 << 23  # of latencies of groups: 64 MiB


def list_members(mask: int) -> tuple[int, ...]:
    """The devices of a group, in their order."""
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def join_members(members: Sequence[int]) -> int:
    """The group of these devices."""
    return sum(1 << i for i in set(members))


@dataclass(eq=False)
class Costs:
    """Latencies and outages of the groups that these devices can form for so many filters."""

    devices: tuple[DeviceProfile, ...]
    students: tuple[StudentType, ...]
    filters: int
    p_th: float
    objective: Objective
    bits_per_filter: float = 32
    input_bits: float = 0
    _fixed_s: FloatArray = field(init=False, repr=False)  # [devices, students]
    _filter_s: FloatArray = field(init=False, repr=False)  # [devices]
    _fits: np.ndarray[Any, np.dtype[np.bool_]] = field(
        init=False, repr=False
    )  # bool [devices, students]
    _latencies: dict[int, FloatArray] = field(default_factory=dict, init=False, repr=False)
    _outages: dict[int, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = [[(device, student) for student in self.students] for device in self.devices]
        self._fixed_s = np.array(
            [[fixed_latency_s(*pair, self.input_bits) for pair in row] for row in pairs]
        )
        self._filter_s = np.array(
            [filter_latency_s(device, self.bits_per_filter) for device in self.devices]
        )
        self._fits = np.array([[fits(*pair) for pair in row] for row in pairs])

    def outage(self, group: int) -> float:
        """The probability that all its members fail."""
        if group not in self._outages:
            self._outages[group] = group_outage(
                read_outage(self.devices[i]) for i in list_members(group)
            )
        return self._outages[group]

    def is_reliable(self, group: int) -> bool:
        """Whether it meets the outage bound."""
        return meets_bound(self.outage(group), self.p_th)

    def student_latencies_s(self, group: int) -> FloatArray:
        """Seconds for 1, 2, … filters with each student, [students, filters]; infinite where the
        student does not fit into a member's memory or cannot learn so many."""
        members = np.array(list_members(group))
        counts = np.arange(1, self.filters + 1)
        times = self._fixed_s[members][:, :, None] + self._filter_s[members][:, None, None] * counts
        outages = [read_outage(self.devices[i]) for i in members]
        latencies = group_latency_s(times, outages, self.objective)
        capacities = np.array([student.capacity for student in self.students])
        impossible = ~self._fits[members].all(axis=0)[:, None] | (counts > capacities[:, None])
        return np.where(impossible, np.inf, latencies)

    def latencies_s(self, group: int) -> FloatArray:
        """Seconds for 1, 2, … filters with the best student, [filters]: never falling."""
        if group not in self._latencies:
            if len(self._latencies) * self.filters >= CACHED_VALUES:
                self._latencies.clear()
            fastest = self.student_latencies_s(group).min(axis=0)
            self._latencies[group] = np.maximum.accumulate(fastest)  # means may fall by rounding
        return self._latencies[group]

    def choose_student(self, group: int, filters: int) -> StudentType:
        """The student with which the group answers soonest; of equals the smallest."""
        latencies = self.student_latencies_s(group)[:, filters - 1]
        best = min(
            range(len(self.students)), key=lambda s: (latencies[s], self.students[s].memory_bytes)
        )
        return self.students[best]

    def limit(self, group: int, latency_s: float) -> int:
        """The most filters that the group holds within a latency."""
        return int(self.latencies_s(group).searchsorted(latency_s, side="right"))

    def latency_s(self, groups: Sequence[int]) -> float:
        """The least maximum latency of these groups over all sizes of their parts, 1 or more.

        A group's latency never falls with its filters, so the filters that fit within T are as
        many as its latencies up to T: the least T is the M-th smallest of all groups' latencies,
        or what the slowest group takes for one filter. Infinite where the filters do not fit, or
        are fewer than the groups.
        """
        if len(groups) > self.filters:
            return inf
        rows = np.array([self.latencies_s(group) for group in groups])
        enough = np.partition(rows, self.filters - 1, axis=None)[self.filters - 1]
        return float(max(enough, rows[:, 0].max()))

    def p_full(self, groups: Sequence[int]) -> float:
        """The probability that no group is lost."""
        return p_all(self.outage(group) for group in groups)


def share_filters(limits: Sequence[int], filters: int) -> IntArray:
    """Sizes of parts, at least 1 and at most the limits, in proportion to these.

    limits: at least 1 each, `filters` or more in total.
    """
    room = np.array(limits) - 1
    spare = filters - len(room)
    due = spare * room / max(1, room.sum())
    sizes = np.floor(due).astype(np.int64)
    for largest in np.argsort(sizes - due, kind="stable")[: spare - sizes.sum()]:
        sizes[largest] += 1
    return np.asarray(sizes + 1, dtype=np.int64)
