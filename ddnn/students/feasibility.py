"""Why no plan meets the bounds, and what would."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ddnn.core.device import DeviceProfile
from ddnn.errors import InfeasiblePlanError
from ddnn.students.costs import Costs, list_members
from ddnn.students.latency import fits
from ddnn.students.types import StudentType

MAX_NAMES = 8  # of devices in a message
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


def explain_outage(costs: Costs, group: int) -> str:
    """Why a group does not meet the outage bound."""
    outage, members = costs.outage(group), list_members(group)
    who = ", ".join(costs.devices[i].name for i in members[:MAX_NAMES])
    if len(members) > MAX_NAMES:
        who += f" and {len(members) - MAX_NAMES} more"
    return (
        f"outage: the group {who} fails as a whole with probability {outage:.3g}, above p_th = "
        f"{costs.p_th:.3g}; use a p_th of {outage:.14g} or more, or add devices that together fail "
        f"with probability {costs.p_th / outage:.3g} or less"
    )


def explain_capacity(costs: Costs, groupings: Sequence[Sequence[int]]) -> str:
    """Why the students of these groupings do not hold all filters."""
    most = max(sum(costs.limit(group, LONGEST_S) for group in groups) for groups in groupings)
    largest = max(costs.students, key=lambda student: student.capacity)
    weak = [device.name for device in costs.devices if not fits(device, largest)]
    advice = f"use students that hold {costs.filters - most} more together, or more devices"
    if weak:
        advice += f"; or leave out {', '.join(weak[:MAX_NAMES])}, without the memory for "
        advice += f"{largest.name} ({largest.memory_bytes:,} bytes)"
    return (
        f"capacity: in groups that meet p_th = {costs.p_th:.3g} the students hold {most} of "
        f"{costs.filters} filters; {advice}, or raise p_th"
    )
