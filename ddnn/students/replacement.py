"""Which group each device joins when devices have left or joined: the students stay what they are.

Students of other groups would have to be trained; the members of the groups can change while the
plan runs. Needs no scipy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf, log, prod
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from ddnn.core.device import DeviceProfile, estimate_outage
from ddnn.core.plan import Plan
from ddnn.machines.availability import Observed
from ddnn.machines.replan import Candidate
from ddnn.students.detail import FEATURES, StudentDetail, read_detail
from ddnn.students.latency import filter_latency_s, fits, fixed_latency_s, group_latency_s
from ddnn.students.outage import group_outage, meets_bound, read_outage
from ddnn.students.types import Objective, StudentType

MARGIN = 0.1  # by which the latency, or the excess, must fall for a device to change its group
LEAST_OUTAGE = 1e-12  # smaller ones are as good
FLOAT_BITS = 32
MAX_STEPS = 64  # of the local search
MAX_EXCHANGED = 32  # devices; of more, no two exchange their places

Groups = tuple[frozenset[str], ...]


class Worth(NamedTuple):
    """What groups are worth; of two, the lesser is the better."""

    excess: float  # by how much the outages are above the bound, in powers of e, of all groups
    latency_s: float
    lost: float  # the probability that a portion is lost


def replan(plan: Plan, candidates: Sequence[Candidate]) -> Plan | None:
    """The plan's students placed on these workers; None where the present placement is as good.

    Each group keeps a member, and meets the outage bound as far as the devices allow. Members stay
    in their groups, unless a change brings a group closer to the bound, or lowers the guaranteed
    latency by a tenth, or halves the probability that a portion is lost. Outages are those that
    were observed, beginning with the plan's.
    """
    detail = read_detail(plan)
    known = describe_devices(plan, detail, candidates)
    devices = {
        one.name: add_observation(known[one.name], one.observed, detail.assumed_outage)
        for one in candidates
    }
    now = tuple(
        frozenset(name for name, held in plan.placement.items() if group in held)
        for group in range(len(plan.pieces))
    )
    scale = _Scale(plan, detail, devices)
    start = tuple(members.intersection(devices) for members in now)
    groups = start
    newcomers = devices.keys() - set().union(*now)
    for name in sorted(newcomers, key=lambda one: (-devices[one].flops_per_s, one)):
        groups = _add(groups, name, scale)  # first: then fewer of the others need to move
    groups = improve(groups, scale)
    if groups == start or not all(groups):
        return None
    placement = {
        name: (number,) for number, members in enumerate(groups) for name in sorted(members)
    }
    revised = scale.describe(groups)
    if detail.devices:  # else the plan is of an earlier version, and no speed is known
        unknown = {name for name, device in known.items() if device.outage_probability is None}
        revised = msgspec.structs.replace(
            revised, devices=list(known.values()), assumed=sorted({*detail.assumed, *unknown})
        )
    return plan.revise(0, placement, msgspec.to_builtins(revised))


def describe_devices(
    plan: Plan, detail: StudentDetail, candidates: Sequence[Candidate]
) -> dict[str, DeviceProfile]:
    """The plan's devices and the candidates besides, with speeds on the plan's scale.

    The plan's speeds may be declared, or count as ratios only: those of others are brought to their
    scale by what the planned devices announce. A device of which no speed is known counts as the
    median of the planned.
    """
    planned = {device.name: device for device in detail.devices}
    for name in plan.placement:  # of a plan that names no devices
        planned.setdefault(name, DeviceProfile(name, 1.0))
    announced = {one.name: one.profile for one in candidates if one.profile is not None}
    ratios = [
        planned[name].flops_per_s / profile.flops_per_s
        for name, profile in announced.items()
        if name in planned
    ]
    middle = median(device.flops_per_s for device in planned.values())
    devices = dict(planned)
    for one in candidates:
        if one.name not in devices:
            profile = one.profile or DeviceProfile(one.name, middle)
            speed = profile.flops_per_s * median(ratios) if one.profile and ratios else middle
            devices[one.name] = msgspec.structs.replace(profile, flops_per_s=speed)
    return devices


def add_observation(device: DeviceProfile, observed: Observed, assumed: float) -> DeviceProfile:
    """The device with the outage probability that was observed, beginning with the plan's."""
    prior = device.outage_probability
    outage = estimate_outage(*observed, assumed if prior is None else prior)
    return msgspec.structs.replace(device, outage_probability=outage)


class _Scale:
    """Weighs groups of these devices, each of which holds the student of its number."""

    def __init__(
        self, plan: Plan, detail: StudentDetail, devices: Mapping[str, DeviceProfile]
    ) -> None:
        self.devices, self._detail = devices, detail
        self._input_bits = FLOAT_BITS * sum(prod(spec.shape) for spec in plan.inputs.values())
        shape = plan.owned["tail"].inputs[FEATURES].shape[:-1]
        self._bits_per_filter = FLOAT_BITS * prod(shape)
        self._students = [
            StudentType(one.name, one.flops, max(one.memory_bytes, 1), len(filters))
            for one, filters in zip(detail.students, detail.filters, strict=True)
        ]
        self._known: dict[tuple[int, frozenset[str]], tuple[float, float]] = {}

    def fits(self, name: str, group: int) -> bool:
        """Whether the device has the memory for the group's student."""
        return fits(self.devices[name], self._students[group])

    def weigh(self, groups: Groups) -> Worth:
        of_groups = [self._weigh_group(number, members) for number, members in enumerate(groups)]
        bound = max(self._detail.p_th, LEAST_OUTAGE)
        excess = sum(
            0.0 if meets_bound(outage, bound) else log(outage / bound) for outage, _ in of_groups
        )
        return Worth(
            round(excess, 9),
            max(latency_s for _, latency_s in of_groups),
            1 - prod(1 - outage for outage, _ in of_groups),
        )

    def describe(self, groups: Groups) -> StudentDetail:
        """The plan's detail with what these groups promise."""
        outage = [self._weigh_group(*group)[0] for group in enumerate(groups)]
        detail = msgspec.structs.replace(self._detail, outage=outage)
        if not detail.devices:  # of an earlier version: the speeds are not known
            return detail
        return msgspec.structs.replace(
            detail,
            guaranteed_latency_s=self._longest_s(groups, "guaranteed"),
            expected_latency_s=self._longest_s(groups, "expected"),
            best_latency_s=self._longest_s(groups, "best"),
        )

    def _weigh_group(self, number: int, members: frozenset[str]) -> tuple[float, float]:
        """The probability that all fail, and the latency of the slowest."""
        key = number, members
        if key not in self._known:
            outages = [read_outage(self.devices[name]) for name in members]
            latencies = self._list_latencies_s(number, members)
            self._known[key] = group_outage(outages), max(latencies, default=inf)
        return self._known[key]

    def _list_latencies_s(self, number: int, members: frozenset[str]) -> list[float]:
        student, filters = self._students[number], len(self._detail.filters[number])
        return [
            fixed_latency_s(self.devices[name], student, self._input_bits)
            + filter_latency_s(self.devices[name], self._bits_per_filter) * filters
            for name in sorted(members)
        ]

    def _longest_s(self, groups: Groups, objective: Objective) -> float:
        return max(
            float(
                group_latency_s(
                    np.array(self._list_latencies_s(number, members)),
                    [read_outage(self.devices[name]) for name in sorted(members)],
                    objective,
                )
            )
            for number, members in enumerate(groups)
        )


def improve(groups: Groups, scale: _Scale) -> Groups:
    """Move devices one by one while that is worth it."""
    for _ in range(MAX_STEPS):
        present = scale.weigh(groups)
        better = (
            moved
            for moved in _list_moves(groups, scale)
            if _is_worth_it(present, scale.weigh(moved))
        )
        best = min(better, key=scale.weigh, default=None)
        if best is None:
            break
        groups = best
    return groups


def _is_worth_it(present: Worth, other: Worth) -> bool:
    """Whether devices change their groups for this."""
    if other.excess < present.excess - MARGIN:
        return True
    if other.excess > present.excess or other.latency_s > present.latency_s:
        return False
    return other.latency_s < present.latency_s * (1 - MARGIN) or 2 * other.lost < present.lost


def _list_moves(groups: Groups, scale: _Scale) -> Iterator[Groups]:
    """One device in another group, or two in each other's."""
    homes = {name: number for number, members in enumerate(groups) for name in sorted(members)}
    for name, home in homes.items():
        for number in range(len(groups)):
            if number != home and scale.fits(name, number):
                yield _change(groups, {home: (name, None), number: (None, name)})
    if len(homes) > MAX_EXCHANGED:
        return
    for name, home in homes.items():
        for other, place in homes.items():
            if home < place and scale.fits(name, place) and scale.fits(other, home):
                yield _change(groups, {home: (name, other), place: (other, name)})


def _add(groups: Groups, name: str, scale: _Scale) -> Groups:
    """With one device more, where it is worth most; as they are where it has no memory for any."""
    more = [
        _change(groups, {number: (None, name)})
        for number in range(len(groups))
        if scale.fits(name, number)
    ]
    return min(more, key=scale.weigh, default=groups)


def _change(groups: Groups, changes: Mapping[int, tuple[str | None, str | None]]) -> Groups:
    """changes: by group, who leaves it and who joins it."""
    changed = list(groups)
    for number, (leaves, joins) in changes.items():
        changed[number] = (changed[number] - {leaves}) | ({joins} if joins is not None else set())
    return tuple(changed)
