"""Random sites of few devices, and the optimum of their plans by enumeration in plain Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, prod

import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.students import StudentType
from ddnn.students.outage import read_outage


def make_students(rng: np.random.Generator, filters: int) -> list[StudentType]:
    return [
        StudentType(
            f"s{i}",
            float(rng.uniform(1e6, 4e7)),
            int(rng.integers(100_000, 1_000_000)),
            int(rng.integers(filters // 3 + 1, filters + 1)),
        )
        for i in range(int(rng.integers(1, 4)))
    ]


def make_devices(rng: np.random.Generator, n: int) -> list[DeviceProfile]:
    """Devices as in the notes: 5 to 30 MFLOP/s, 0.5 to 1 kbit/s."""
    return [
        DeviceProfile(
            f"d{i}",
            flops_per_s=float(rng.uniform(5e6, 3e7)),
            memory_bytes=None if rng.random() < 0.5 else int(rng.integers(100_000, 2_000_000)),
            uplink_bits_per_s=float(rng.uniform(500, 1000)),
            downlink_bits_per_s=float(rng.uniform(500, 1000)),
            outage_probability=float(rng.choice([0.0, 0.05, 0.1, 0.2, 0.3, 0.4])),
        )
        for i in range(n)
    ]


def make_graph(rng: np.random.Generator, filters: int) -> np.ndarray:
    weights = rng.random((filters, filters)) ** 3
    return np.triu(weights, 1) + np.triu(weights, 1).T


def set_partitions(items: Sequence[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *rest = items
    for groups in set_partitions(rest):
        yield [[first], *groups]
        for k, group in enumerate(groups):
            yield [*groups[:k], [first, *group], *groups[k + 1 :]]


def member_latency_s(
    device: DeviceProfile, student: StudentType, filters: int, bits: float, input_bits: float
) -> float:
    down = 0 if device.downlink_bits_per_s is None else input_bits / device.downlink_bits_per_s
    up = 0 if device.uplink_bits_per_s is None else bits * filters / device.uplink_bits_per_s
    return down + student.flops / device.flops_per_s + up


def fastest_group_s(
    devices: Sequence[DeviceProfile],
    students: Sequence[StudentType],
    filters: int,
    objective: str,
    bits: float,
    input_bits: float,
) -> float:
    """The least latency of a group over the students; the mean by enumeration of who lives."""
    best = inf
    for student in students:
        if student.capacity < filters or any(
            device.memory_bytes is not None and device.memory_bytes < student.memory_bytes
            for device in devices
        ):
            continue
        times = [member_latency_s(d, student, filters, bits, input_bits) for d in devices]
        if objective == "expected":
            total = weight = 0.0
            for live in range(1, 1 << len(devices)):
                p = prod(
                    1 - read_outage(d) if live >> i & 1 else read_outage(d)
                    for i, d in enumerate(devices)
                )
                weight += p
                total += p * min(time for i, time in enumerate(times) if live >> i & 1)
            best = min(best, total / weight)
        else:
            best = min(best, max(times) if objective == "guaranteed" else min(times))
    return best


def least_latency_s(
    devices: Sequence[DeviceProfile],
    filters: int,
    students: Sequence[StudentType],
    p_th: float,
    objective: str = "guaranteed",
    bits: float = 32,
    input_bits: float = 0,
) -> float:
    """The least latency over all groupings of the devices that can hold a student, students of the
    groups and sizes of their parts; infinite where there is none.

    For a grouping, filters are given one by one to the group that then has the least latency.
    """
    usable = [
        device
        for device in devices
        if any(
            device.memory_bytes is None or device.memory_bytes >= s.memory_bytes for s in students
        )
    ]
    if not usable:
        return inf
    known: dict[tuple[int, ...], list[float]] = {}

    def latencies(group: list[int]) -> list[float]:
        key = tuple(group)
        if key not in known:
            members = [usable[i] for i in group]
            known[key] = [
                fastest_group_s(members, students, count, objective, bits, input_bits)
                for count in range(1, filters + 1)
            ]
        return known[key]

    best = inf
    for groups in set_partitions(range(len(usable))):
        if len(groups) > filters or any(
            prod(read_outage(usable[i]) for i in group) > p_th * (1 + 1e-9) for group in groups
        ):
            continue
        rows = [latencies(group) for group in groups]
        sizes = [1] * len(rows)
        for _ in range(filters - len(rows)):
            after = [
                row[size] if size < filters else inf for row, size in zip(rows, sizes, strict=True)
            ]
            sizes[after.index(min(after))] += 1
        best = min(best, max(row[size - 1] for row, size in zip(rows, sizes, strict=True)))
    return best
