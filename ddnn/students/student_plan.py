"""A plan of students: which devices hold which student with which filters, and what it promises."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np

from ddnn.core.device import ASSUMED_OUTAGE, DeviceProfile
from ddnn.errors import ConfigError
from ddnn.students.latency import filter_latency_s, fixed_latency_s, group_latency_s
from ddnn.students.outage import group_outage, p_all, p_all_after, read_outage
from ddnn.students.types import Objective, StudentType


class Group(NamedTuple):
    """Devices that all hold the same student, and the filters whose portion it gives."""

    members: tuple[str, ...]
    student: StudentType
    filters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StudentPlan:
    """Groups that together hold every filter once.

    devices: those of the groups and the unused; unused: names of devices whose memory holds no
    student. assumed: names of devices of which no outage probability was known; in `devices` they
    have the one that was assumed, `assumed_outage`. Seconds leave out the classifier, which the
    source runs.
    """

    groups: tuple[Group, ...]
    devices: tuple[DeviceProfile, ...]
    unused: tuple[str, ...]
    objective: Objective
    p_th: float
    bits_per_filter: float
    input_bits: float
    assumed: tuple[str, ...] = ()
    assumed_outage: float = ASSUMED_OUTAGE

    def latency_s(self, failed: Collection[str] = ()) -> float:
        """Seconds until the last portion is there, when these devices do not answer.

        A portion is there when the first live member has answered; infinite where a group has none.
        Raises ConfigError where a name is no device's.
        """
        if isinstance(failed, str):
            raise ConfigError(f"failed is {failed!r}; give a collection of names")
        silent = set(failed)
        unknown = sorted(silent - {device.name for device in self.devices})
        if unknown:
            raise ConfigError(f"failed: the plan has no device {', '.join(unknown)}")
        live = [set(group.members) - silent for group in self.groups]
        if not all(live):
            return inf
        return max(
            self._group_latency_s(group, "best", members)
            for group, members in zip(self.groups, live, strict=True)
        )

    @property
    def guaranteed_latency_s(self) -> float:
        """The most that `latency_s` is after any failures that leave each group a member."""
        return max(self._group_latency_s(group, "guaranteed") for group in self.groups)

    @property
    def expected_latency_s(self) -> float:
        """The largest of the groups' mean latencies, given that each has a live member."""
        return max(self._group_latency_s(group, "expected") for group in self.groups)

    @property
    def best_latency_s(self) -> float:
        """`latency_s` when no device fails."""
        return self.latency_s()

    def p_full(self, k: int | None = None) -> float:
        """The probability that every portion arrives.

        None: devices fail independently with their outage probabilities. Else exactly k devices of
        the groups failed, each set of k as likely. Raises ConfigError where k is out of range.
        """
        if k is None:
            return p_all(self.outage(group) for group in self.groups)
        return float(p_all_after([len(group.members) for group in self.groups], k))

    def outage(self, group: Group) -> float:
        """The probability that all members of a group fail, if they fail independently."""
        return group_outage(read_outage(device) for device in self._list_devices(group))

    def _list_devices(self, group: Group) -> list[DeviceProfile]:
        return [device for device in self.devices if device.name in group.members]

    def _group_latency_s(
        self, group: Group, objective: Objective, members: Collection[str] | None = None
    ) -> float:
        devices = [
            device
            for device in self._list_devices(group)
            if members is None or device.name in members
        ]
        times = [
            fixed_latency_s(device, group.student, self.input_bits)
            + filter_latency_s(device, self.bits_per_filter) * len(group.filters)
            for device in devices
        ]
        outages = [read_outage(device) for device in devices]
        return float(group_latency_s(np.array(times), outages, objective))
