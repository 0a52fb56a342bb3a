"""Planning of redundant students: groups of devices, a student and a part of the filters for each.

Follows RoCoIn (Wang et al., arXiv 2406.14185): devices are grouped, all members of a group run the
same student, and partition and assignment are joint. The model is that of the room's README.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any, Literal, SupportsIndex, get_args

import numpy as np

from ddnn.core.device import ASSUMED_OUTAGE, DeviceProfile
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.students.assignment import assign_by_bottleneck, assign_by_sum
from ddnn.students.costs import Costs, join_members, list_members, share_filters
from ddnn.students.feasibility import explain_capacity, explain_outage, split_by_memory
from ddnn.students.grouping import MAX_EXACT, Groups, search_all, search_some
from ddnn.students.outage import assume_outages
from ddnn.students.partition import cut_filters, find_communities
from ddnn.students.student_plan import Group, StudentPlan
from ddnn.students.types import (
    FloatArray,
    Objective,
    StudentType,
    check_bound,
    check_devices,
    check_filter_graph,
    check_objective,
    check_students,
)

Grouping = Literal["auto", "follow", "exact"] | Collection[Collection[str]]
"""auto: exact up to MAX_EXACT devices, else follow; or the names of each group's devices."""
Assignment = Literal["bottleneck", "sum"]
Partition = Literal["ncut", "louvain"]


def plan(
    devices: Sequence[DeviceProfile],
    filter_graph: Any,
    students: Sequence[StudentType],
    p_th: float,
    objective: Objective = "guaranteed",
    *,
    bits_per_filter: float = 32,
    input_bits: float = 0,
    group: Grouping = "auto",
    assign: Assignment = "bottleneck",
    partition: Partition = "ncut",
    assumed_outage: float = ASSUMED_OUTAGE,
    seed: int = 0,
) -> StudentPlan:
    """The plan with the least latency whose groups each fail with probability `p_th` at most.

    filter_graph: [filters, filters], symmetric, 0 or more; see `build_filter_graph`.
    students: the types a group can run. objective: which member's answer counts, the slowest
    (guaranteed: holds as long as each group has a live member), the first on average, or the
    fastest. A filter takes `bits_per_filter` on a device's uplink, the input `input_bits` on its
    downlink; an unknown link takes no time, an unknown memory has no limit. Every device with the
    memory for a student is in a group.

    assumed_outage: of devices whose outage probability is not known.
    group: how devices are grouped, also in how many groups; assign: parts to groups by the least
    maximum latency, or the least sum (Kuhn-Munkres); partition: how filters are grouped.

    Raises ConfigError for impossible input, InfeasiblePlanError where a bound cannot be met.
    """
    graph = check_filter_graph(filter_graph)
    assumed = tuple(device.name for device in devices if device.outage_probability is None)
    devices = assume_outages(devices, assumed_outage)
    costs, unused = make_costs(
        devices, len(graph), students, p_th, objective, bits_per_filter, input_bits
    )
    _check_choice("assign", assign, Assignment)
    _check_choice("partition", partition, Partition)
    if not isinstance(group, str):
        groups = _take_groups(group, costs)
        unused += _list_left(costs, groups)
    else:
        found = find_groupings(costs, group, seed)
        groups, _ = min(found, key=lambda one: (one[1], -costs.p_full(one[0])))
    latency_s = costs.latency_s(groups)
    limits = [costs.limit(members, latency_s) for members in groups]
    sizes = share_filters(limits, costs.filters)
    if partition == "ncut":
        labels = cut_filters(graph, sizes.tolist(), limits, seed)
    else:
        labels = find_communities(graph, sizes.tolist(), seed)
    parts = [np.flatnonzero(labels == part) for part in range(len(groups))]
    table = np.array([costs.latencies_s(members) for members in groups])  # [groups, filters]
    of_parts: FloatArray = table[:, [len(part) - 1 for part in parts]]
    choose = assign_by_bottleneck if assign == "bottleneck" else assign_by_sum
    return StudentPlan(
        groups=tuple(
            Group(
                tuple(costs.devices[i].name for i in list_members(members)),
                costs.choose_student(members, len(parts[part])),
                tuple(parts[part].tolist()),
            )
            for members, part in zip(groups, choose(of_parts), strict=True)
        ),
        devices=devices,
        unused=unused,
        objective=objective,
        p_th=p_th,
        bits_per_filter=bits_per_filter,
        input_bits=input_bits,
        assumed=assumed,
        assumed_outage=assumed_outage,
    )


def make_costs(
    devices: Sequence[DeviceProfile],
    filters: int,
    students: Sequence[StudentType],
    p_th: float,
    objective: Objective,
    bits_per_filter: float,
    input_bits: float,
) -> tuple[Costs, tuple[str, ...]]:
    """The costs of all groups of usable devices, and the names of the others. Raises as `plan`.

    The outage probability of every device must be known.
    """
    checked, types = check_devices(devices), check_students(students)
    check_bound(p_th)
    check_objective(objective)
    if not isinstance(filters, SupportsIndex) or filters < 1:
        raise ConfigError(f"filters is {filters}; give a whole number from 1")
    for name, bits in (("bits_per_filter", bits_per_filter), ("input_bits", input_bits)):
        if not (isfinite(bits) and bits >= 0):
            raise ConfigError(f"{name} is {bits}; give a number from 0")
    usable, unused = split_by_memory(checked, types)
    costs = Costs(usable, types, filters, p_th, objective, bits_per_filter, input_bits)
    return costs, unused


def find_groupings(costs: Costs, group: str, seed: int) -> list[tuple[Groups, float]]:
    """Feasible groupings and their least latencies. Raises as `plan`."""
    _check_choice("group", group, get_args(Grouping)[0])
    if not isinstance(seed, SupportsIndex) or seed < 0:
        raise ConfigError(f"seed is {seed}; give a whole number from 0")
    n = len(costs.devices)
    if group == "exact" and n > MAX_EXACT:
        raise ConfigError(
            f"group 'exact' with {n} devices; it takes up to {MAX_EXACT}, use 'follow'"
        )
    everyone = (1 << n) - 1
    if not costs.is_reliable(everyone):
        raise InfeasiblePlanError(explain_outage(costs, everyone))
    exact = group == "exact" or (group == "auto" and n <= MAX_EXACT)
    found = search_all(costs) if exact else search_some(costs, seed)
    feasible = [(groups, latency_s) for groups, latency_s in found if isfinite(latency_s)]
    if not feasible:
        raise InfeasiblePlanError(explain_capacity(costs, [groups for groups, _ in found]))
    return feasible


def _list_left(costs: Costs, groups: Groups) -> tuple[str, ...]:
    """The names of the devices that are in no group."""
    return tuple(
        device.name
        for i, device in enumerate(costs.devices)
        if not any(members >> i & 1 for members in groups)
    )


def _take_groups(names: Collection[Collection[str]], costs: Costs) -> Groups:
    """The groups of these names. Raises as `plan`."""
    index = {device.name: i for i, device in enumerate(costs.devices)}
    given = [name for members in names for name in members]
    unknown = sorted(set(given) - set(index))
    if unknown:
        raise ConfigError(f"group: {', '.join(unknown)} is no device whose memory holds a student")
    if not given or len(set(given)) < len(given) or not all(names):
        raise ConfigError("group: a group is empty or a device is in two; give disjoint groups")
    if len(names) > costs.filters:
        raise ConfigError(
            f"group: {len(names)} groups for {costs.filters} filters; each group needs a filter"
        )
    groups = tuple(join_members([index[name] for name in members]) for members in names)
    failing = next((members for members in groups if not costs.is_reliable(members)), None)
    if failing is not None:
        raise InfeasiblePlanError(explain_outage(costs, failing))
    if not isfinite(costs.latency_s(groups)):
        raise InfeasiblePlanError(explain_capacity(costs, [groups]))
    return groups


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise ConfigError(f"{name} {value!r}; expected one of {', '.join(get_args(choices))}")
