"""What latency, reliability and parameters cost each other: the plans that none beats in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddnn.core.device import DeviceProfile
from ddnn.students.costs import Costs, list_members, share_filters
from ddnn.students.grouping import Groups
from ddnn.students.planning import find_groupings, make_costs
from ddnn.students.types import Objective, StudentType


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """A grouping and what it costs. student_bytes: of all groups' students, each counted once."""

    latency_s: float  # by the objective
    p_full: float
    student_bytes: int
    groups: tuple[tuple[str, ...], ...]
    students: tuple[str, ...]
    sizes: tuple[int, ...]  # filters of each group


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
    seed: int = 0,
) -> list[Tradeoff]:
    """The groupings that no other beats in latency, p_full and student_bytes, the fastest first.

    Of all groupings where the search is exact, else of those that it found. Raises as `plan`.
    """
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


def format_tradeoffs(rows: Sequence[Tradeoff]) -> list[str]:
    """The lines of a table of trade-offs, for people."""
    lines = [f"{'latency':>10} {'P(full)':>9} {'students':>12}  groups"]
    for row in rows:
        groups = " | ".join(
            f"{student} x{len(members)}, {size} filters"
            for members, student, size in zip(row.groups, row.students, row.sizes, strict=True)
        )
        size = f"{row.student_bytes / 1000:,.0f} kB"
        lines.append(f"{row.latency_s:8.3f} s {row.p_full:9.4f} {size:>12}  {groups}")
    return lines
