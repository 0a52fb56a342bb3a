"""Groups of devices: follow-the-leader with local search, and all groupings of few devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np

from ddnn.students.costs import Costs, join_members, list_members
from ddnn.students.outage import meets_bound, read_outage
from ddnn.students.types import FloatArray, IntArray

Groups = tuple[int, ...]  # disjoint bit masks that cover all devices

MAX_EXACT = 8  # devices; they have 4,140 groupings
MAX_REDISTRIBUTED = 6  # members of two groups of which all redistributions are tried
STRICTER = (1.0, 1.5, 2.0, 3.0)  # powers of the outage bound that follow-the-leader starts with
REACHES = (np.inf, 0.25)  # of scaled capability
SHUFFLES = 4  # random orders of the devices to start with
STEPS = (0.1, 0.02, 0.0)  # by which parts of the latency the local search tries to lower it
MAX_LOOKS = 1200  # pairs of groups of which redistributions are tried, of all starts together
CHUNK_VALUES = 1 << 22  # latencies looked at together in the exact search


# ---------------------------------------------------------------------- exact


@lru_cache(maxsize=MAX_EXACT)
def list_groupings(devices: int) -> IntArray:
    """All ways to group so many devices, int64 [Bell(devices), devices]; empty groups are 0."""
    groupings: list[list[int]] = [[]]
    for device in range(devices):
        bit = 1 << device
        groupings = [
            [*groups[:k], *([groups[k] | bit] if k < len(groups) else [bit]), *groups[k + 1 :]]
            for groups in groupings
            for k in range(len(groups) + 1)
        ]
    padded = [groups + [0] * (devices - len(groups)) for groups in groupings]
    return np.array(padded, dtype=np.int64)


def search_all(costs: Costs) -> list[tuple[Groups, float]]:
    """Every grouping that meets the outage bound and its least latency, infinite where the filters
    do not fit."""
    n = len(costs.devices)
    reliable = np.array([True] + [costs.is_reliable(group) for group in range(1, 1 << n)])
    groupings = list_groupings(n)
    few = (groupings > 0).sum(axis=1) <= costs.filters
    groupings = groupings[few & reliable[groupings].all(axis=1)]
    rows = np.full((1 << n, costs.filters), np.inf)
    for group in np.unique(groupings[groupings > 0]):
        rows[group] = costs.latencies_s(int(group))
    found: list[tuple[Groups, float]] = []
    step = max(1, CHUNK_VALUES // (n * costs.filters))
    for start in range(0, len(groupings), step):
        chunk = groupings[start : start + step]
        latencies = np.where(chunk[:, :, None] > 0, rows[chunk], np.inf)
        firsts = np.where(chunk > 0, rows[chunk][:, :, 0], 0).max(axis=1)
        enough = np.partition(latencies.reshape(len(chunk), -1), costs.filters - 1, axis=1)
        bounds = np.maximum(enough[:, costs.filters - 1], firsts)
        found += [
            (tuple(int(group) for group in groups if group), float(bound))
            for groups, bound in zip(chunk, bounds, strict=True)
        ]
    return found


# ---------------------------------------------------------------------- heuristic


def scale_capabilities(costs: Costs) -> FloatArray:
    """Speed and uplink as parts of the largest, [devices, 2]; an unknown one counts as that."""
    speeds = np.array([device.flops_per_s for device in costs.devices])
    links = np.array([device.uplink_bits_per_s or np.nan for device in costs.devices])
    known = links[~np.isnan(links)]
    links = np.nan_to_num(links / known.max(), nan=1.0) if len(known) else np.ones(len(links))
    return np.stack([speeds / speeds.max(), links], axis=1)


def complete_leaders(outages: Sequence[float], p_th: float) -> Groups:
    """As many groups as this finds: the most reliable device that is left leads, and the least
    reliable one with which the group meets the bound completes it, else the next most reliable one
    joins. Devices with which no group meets the bound join the last one."""
    left = sorted(range(len(outages)), key=lambda i: (outages[i], i))
    groups: list[int] = []
    while left:
        members = [left.pop(0)]
        outage = outages[members[0]]
        while left and not meets_bound(outage, p_th):
            enough = [i for i in left if meets_bound(outage * outages[i], p_th)]
            joins = enough[-1] if enough else left[0]
            left.remove(joins)
            members.append(joins)
            outage *= outages[joins]
        _add_group(groups, members, is_reliable=meets_bound(outage, p_th))
    return tuple(groups)


def _add_group(groups: list[int], members: Sequence[int], *, is_reliable: bool) -> None:
    """Add a group; one that does not meet the bound joins the last."""
    if is_reliable or not groups:
        groups.append(join_members(members))
    else:
        groups[-1] |= join_members(members)


def _rank(values: Sequence[float]) -> FloatArray:
    """The place of each value among them, as a capability, [devices, 1]."""
    return np.argsort(np.argsort(values, kind="stable")).astype(np.float64)[:, None]


def follow_leaders(
    capabilities: FloatArray, outages: Sequence[float], p_th: float, reach: float
) -> Groups:
    """Follow-the-leader: groups of devices of like capability that meet an outage bound.

    The most capable device that is left leads; the nearest within `reach` join it until the group
    meets the bound, and beyond `reach` the most reliable ones. A last group that does not meet it
    joins the group before it, the weakest of the others.
    """
    left = sorted(range(len(outages)), key=lambda i: -float(capabilities[i].sum()))
    groups: list[int] = []
    while left:
        leader, *others = left
        distance = np.linalg.norm(capabilities[others] - capabilities[leader], axis=1)
        near = [others[i] for i in np.argsort(distance, kind="stable") if distance[i] <= reach]
        far = sorted(set(others) - set(near), key=lambda i: (outages[i], i))
        members, outage = [leader], outages[leader]
        for device in near + far:
            if meets_bound(outage, p_th):
                break
            members.append(device)
            outage *= outages[device]
        left = [device for device in left if device not in members]
        _add_group(groups, members, is_reliable=meets_bound(outage, p_th))
    return tuple(groups)


def list_redistributions(first: int, second: int) -> Iterator[tuple[int, int]]:
    """Ways to put the members of two groups into two groups or one; 0 is an empty group.

    All of them where the members are few, else those that move one member or exchange two.
    """
    both = first | second
    if both.bit_count() <= MAX_REDISTRIBUTED:
        lowest = both & -both
        rest = both ^ lowest
        part = rest
        while True:  # over the subsets of `rest`
            yield lowest | part, rest ^ part
            if not part:
                return
            part = (part - 1) & rest
    yield both, 0
    ours, theirs = ([1 << i for i in list_members(group)] for group in (first, second))
    for bit in [*ours, *theirs]:
        yield first ^ bit, second ^ bit
    for mine in ours:
        for other in theirs:
            yield first ^ mine ^ other, second ^ mine ^ other


def improve_groups(costs: Costs, groups: Groups, looks: int) -> tuple[Groups, float, int]:
    """Local search: redistribute the members of two groups while that lowers the latency.

    Within less than the latency T, the groups hold fewer than all filters; a redistribution counts
    as better where they hold more. Once they hold all, T is lowered and the search goes on.
    Returns the groups, their latency, and how many of `looks` pairs of groups were not looked at.
    """
    latency_s = costs.latency_s(groups)
    for step in STEPS:
        while looks > 0:
            goal_s = float(np.nextafter(latency_s * (1 - step), 0))
            better, looks = _reach_latency(costs, groups, goal_s, looks)
            if not better:
                break
            groups, latency_s = better, costs.latency_s(better)
    return groups, latency_s, looks


def _reach_latency(costs: Costs, start: Groups, goal_s: float, looks: int) -> tuple[Groups, int]:
    """Redistribute until the groups hold all filters within `goal_s`; () where that fails."""
    worthless = -costs.filters * len(costs.devices)  # more than all other groups can hold
    limits: dict[int, int] = {0: 0}

    def count_filters(groups: Iterable[int]) -> int:
        for group in groups:
            if group not in limits:
                usable = costs.is_reliable(group) and costs.limit(group, goal_s)
                limits[group] = usable or worthless
        return sum(limits[group] for group in groups)

    groups = {0, *start}
    waiting = deque(combinations(sorted(groups), 2))
    total = count_filters(groups)
    while waiting and looks > 0 and total < costs.filters:
        pair = waiting.popleft()
        if not groups.issuperset(pair):
            continue
        looks -= 1
        if 0 in pair and len(groups) > costs.filters:
            continue  # a further group would hold no filter
        best = max(list_redistributions(*pair), key=count_filters)
        gain = count_filters(best) - count_filters(pair)
        if gain > 0:
            total += gain
            groups = groups.difference(pair) | {0}
            others = sorted(groups)
            new = [group for group in best if group]
            waiting.extend((a, b) for a in new for b in others)
            waiting.extend(combinations(new, 2))
            groups.update(new)
    found = tuple(sorted(groups - {0})) if total >= costs.filters else ()
    return found, looks


def list_starts(costs: Costs, seed: int = 0, shuffles: int = SHUFFLES) -> list[Groups]:
    """Groupings to improve: follow-the-leader by capability, memory, outage and random orders.

    Bounds stricter than p_th make fewer, larger groups. None is repeated.
    """
    outages = [read_outage(device) for device in costs.devices]
    capabilities = scale_capabilities(costs)
    ranks = _rank([device.memory_bytes or np.inf for device in costs.devices])
    rng = np.random.default_rng(seed)
    orders = [ranks, *(rng.random((len(outages), 1)) for _ in range(shuffles))]
    starts = [
        follow_leaders(capabilities, outages, costs.p_th**power, reach)
        for power in STRICTER
        for reach in REACHES
    ]
    starts += [follow_leaders(order, outages, costs.p_th, np.inf) for order in orders]
    by_outage = _rank(outages)
    starts += [follow_leaders(o, outages, costs.p_th, np.inf) for o in (by_outage, -by_outage)]
    starts.append(complete_leaders(outages, costs.p_th))
    starts.append((join_members(range(len(outages))),))
    few = [_join_last(groups, costs.filters) for groups in starts]
    return list(dict.fromkeys(tuple(sorted(groups)) for groups in few))


def _join_last(groups: Groups, most: int) -> Groups:
    """At most so many groups: the last ones become one."""
    return groups if len(groups) <= most else (*groups[: most - 1], sum(groups[most - 1 :]))


def search_some(costs: Costs, seed: int = 0) -> list[tuple[Groups, float]]:
    """The starts and what local search makes of them, the most promising first; their latencies."""
    starts = [groups for groups in list_starts(costs, seed) if all(map(costs.is_reliable, groups))]
    found = sorted(((groups, costs.latency_s(groups)) for groups in starts), key=lambda one: one[1])
    looks = MAX_LOOKS
    for groups, _ in tuple(found):
        better, latency_s, looks = improve_groups(costs, groups, looks)
        found.append((better, latency_s))
    return list(dict(found).items())
