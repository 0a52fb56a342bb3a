"""What is compared: RoCoIn in several groupings, NoNN, averaging-NoNN, heterogeneous students."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.students.scales import DEVICES
from ddnn.core.device import DeviceProfile
from ddnn.students import Group, StudentPlan, StudentType, find_communities, plan
from ddnn.students.costs import join_members
from ddnn.students.planning import make_costs
from ddnn.students.types import Objective

OUTAGE = 0.1  # of every device
P_TH = 0.01  # groups of two or more
OBJECTIVE: Objective = "expected"
FILTER_BITS = 32  # a spatial mean, float32: all that a pooled classifier needs of a filter's map


@dataclass(frozen=True, slots=True)
class Method:
    """A plan, and whether every device has weights of its own.

    redundant: the members of a group hold the same student and the first answer counts. Otherwise
    each device has its own student, the source waits for all of them, and averages the portions of
    one group.
    """

    plan: StudentPlan
    redundant: bool

    @property
    def students(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Backbone and filters of each network that is trained."""
        return tuple(
            (group.student.name, group.filters)
            for group in self.plan.groups
            for _ in range(1 if self.redundant else len(group.members))
        )

    @property
    def holders(self) -> tuple[frozenset[str], ...]:
        """The devices that hold each of these networks."""
        return tuple(
            holder
            for group in self.plan.groups
            for holder in (
                [frozenset(group.members)]
                if self.redundant
                else [frozenset([member]) for member in group.members]
            )
        )


Devices = Sequence[DeviceProfile]
Types = Sequence[StudentType]


def plan_rocoin(devices: Devices, graph: Any, types: Types, seed: int, size: int = 0) -> Method:
    """RoCoIn: the fastest groups of `size` devices each; 0: of any size."""
    options: dict[str, Any] = {"bits_per_filter": FILTER_BITS, "seed": seed}
    if size:
        options["group"] = choose_groups(devices, len(graph), types, size)
    return Method(plan(devices, graph, types, P_TH, OBJECTIVE, **options), redundant=True)


def plan_heterogeneous(devices: Devices, graph: Any, types: Types, seed: int) -> Method:
    """A student of its own for each device, with a part and a size that suit it."""
    alone = [[device.name] for device in devices]
    made = plan(
        devices, graph, types, 1.0, OBJECTIVE, bits_per_filter=FILTER_BITS, group=alone, seed=seed
    )
    return Method(made, redundant=False)


def plan_nonn(devices: Devices, graph: Any, types: Types, seed: int, parts: int = 0) -> Method:
    """NoNN: equal parts by Louvain, and the same smallest student that learns one, everywhere.

    parts: device i learns part i mod parts; 0: as many as devices. With fewer, the students of one
    part are averaged (Jeong et al., 2021).
    """
    parts = parts or len(devices)
    sizes = [len(part) for part in np.array_split(np.arange(len(graph)), parts)]
    labels = find_communities(graph, sizes, seed)
    able = [kind for kind in types if kind.capacity >= max(sizes)]
    student = min(able, key=lambda kind: kind.flops)
    groups = tuple(
        Group(
            tuple(device.name for device in devices[part::parts]),
            student,
            tuple(np.flatnonzero(labels == part).tolist()),
        )
        for part in range(parts)
    )
    return Method(
        StudentPlan(groups, tuple(devices), (), OBJECTIVE, 1.0, FILTER_BITS, 0), redundant=False
    )


METHODS: dict[str, Callable[[Devices, Any, Types, int], Method]] = {
    "rocoin-4x2": partial(plan_rocoin, size=2),
    "rocoin-2x4": partial(plan_rocoin, size=4),
    "rocoin-planned": plan_rocoin,
    "nonn": plan_nonn,
    "averaging-nonn": partial(plan_nonn, parts=DEVICES // 2),
    "heterogeneous": plan_heterogeneous,
}
ROCOIN = tuple(name for name in METHODS if name.startswith("rocoin"))


def choose_groups(
    devices: Devices, filters: int, types: Types, size: int
) -> tuple[tuple[str, ...], ...]:
    """Of all groupings into groups of `size` devices, the one with the least latency."""
    costs, _ = make_costs(devices, filters, types, P_TH, OBJECTIVE, FILTER_BITS, 0)

    def rate(groups: tuple[tuple[int, ...], ...]) -> float:
        return costs.latency_s([join_members(group) for group in groups])

    best = min(list_equal_groups(tuple(range(len(devices))), size), key=rate)
    return tuple(tuple(devices[i].name for i in group) for group in best)


def list_equal_groups(members: tuple[int, ...], size: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All divisions of the members into groups of `size`; their number must be a multiple of it."""
    if not members:
        yield ()
        return
    first, others = members[0], members[1:]
    for rest in combinations(others, size - 1):
        left = tuple(member for member in others if member not in rest)
        for groups in list_equal_groups(left, size):
            yield ((first, *rest), *groups)
