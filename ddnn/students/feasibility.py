"""Why no plan meets the bounds, and what would."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ddnn.core.device import DeviceProfile
from ddnn.errors import InfeasiblePlanError
from ddnn.students.costs import Costs, list_members
from ddnn.students.latency import fits
from ddnn.students.types import StudentType

LONGEST_S = sys.float_info.max  # every latency but the infinite one


def split_by_memory(
    devices: Sequence[DeviceProfile], students: Sequence[StudentType]
) -> tuple[tuple[DeviceProfile, ...], tuple[str, ...]]:
    """Devices whose memory holds a student, and the names of the others.

    Raises InfeasiblePlanError where no device has the memory.
    """
    usable = tuple(
        device for device in devices if any(fits(device, student) for student in students)
    )
    if not usable:
        smallest = min(students, key=lambda student: student.memory_bytes)
        largest = max(device.memory_bytes or 0 for device in devices)
        raise InfeasiblePlanError(
            f"memory: the smallest student, {smallest.name}, needs {smallest.memory_bytes:,} bytes "
            f"and no device has more than {largest:,}; use a smaller student or a device with more"
        )
    return usable, tuple(device.name for device in devices if device not in usable)


def explain_outage(costs: Costs, group: int | None = None) -> str:
    """Why a group, or all devices together, does not meet the outage bound."""
    everyone = (1 << len(costs.devices)) - 1
    outage = costs.outage(everyone if group is None else group)
    members = list_members(everyone if group is None else group)
    who = (
        f"all {len(members)} devices"
        if group is None
        else f"the group {', '.join(costs.devices[i].name for i in members)}"
    )
    return (
        f"outage: {who} with the memory for a student fail together with probability {outage:.3g}, "
        f"above p_th = {costs.p_th:.3g}; use a p_th of {outage:.3g} or more, or add a device with "
        f"an outage probability of {costs.p_th / outage:.3g} or less"
    )


def explain_capacity(costs: Costs, groupings: Sequence[Sequence[int]]) -> str:
    """Why the students of these groupings do not hold all filters."""
    most = max(sum(costs.limit(group, LONGEST_S) for group in groups) for groups in groupings)
    largest = max(costs.students, key=lambda student: student.capacity)
    weak = [device.name for device in costs.devices if not fits(device, largest)]
    memory = (
        f"; {', '.join(weak)} cannot hold {largest.name} ({largest.memory_bytes:,} bytes): give "
        "more memory or leave out"
        if weak
        else ""
    )
    return (
        f"capacity: the students hold at most {most} of {costs.filters} filters in groups that "
        f"meet p_th = {costs.p_th:.3g}; use students that hold {costs.filters - most} more "
        f"together, more devices, or a larger p_th{memory}"
    )
