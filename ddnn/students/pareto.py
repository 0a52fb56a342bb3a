"""What latency, reliability and parameters cost each other: the plans that none beats in all."""

from __future__ import annotations

from collections.abc import Sequence

from ddnn.core.device import ASSUMED_OUTAGE, DeviceProfile
from ddnn.students.costs import Costs, list_members, share_filters
from ddnn.students.grouping import Groups
from ddnn.students.outage import assume_outages
from ddnn.students.planning import find_groupings, make_costs
from ddnn.students.tradeoff import Tradeoff
from ddnn.students.types import Objective, StudentType


def list_tradeoffs(
    devices: Sequence[DeviceProfile],
    filters: int,
    students: Sequence[StudentType],
    p_th: float,
    objective: Objective = "guaranteed",
    *,
    bits_per_filter: float = 32,
    input_bits: float = 0,
    group: str = "auto",
    assumed_outage: float = ASSUMED_OUTAGE,
    seed: int = 0,
) -> list[Tradeoff]:
    """The groupings that no other beats in latency, p_full and student_bytes, the fastest first.

    Of all groupings where the search is exact, else of those that it found. Raises as `plan`.
    """
    devices = assume_outages(devices, assumed_outage)
    costs, _ = make_costs(devices, filters, students, p_th, objective, bits_per_filter, input_bits)
    found = [_weigh(costs, *one) for one in find_groupings(costs, group, seed)]
    found.sort(key=lambda one: (one.latency_s, -one.p_full, one.student_bytes))
    front: list[Tradeoff] = []
    for one in found:
        if not any(
            best.p_full >= one.p_full and best.student_bytes <= one.student_bytes for best in front
        ):
            front.append(one)
    return front


def _weigh(costs: Costs, groups: Groups, latency_s: float) -> Tradeoff:
    limits = [costs.limit(group, latency_s) for group in groups]
    sizes = share_filters(limits, costs.filters).tolist()
    chosen = [costs.choose_student(group, size) for group, size in zip(groups, sizes, strict=True)]
    return Tradeoff(
        latency_s=latency_s,
        p_full=costs.p_full(groups),
        student_bytes=sum(student.memory_bytes for student in chosen),
        groups=tuple(tuple(costs.devices[i].name for i in list_members(group)) for group in groups),
        students=tuple(student.name for student in chosen),
        sizes=tuple(sizes),
    )
