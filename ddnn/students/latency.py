"""When a group answers: the latency of its members, and which of them counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.students.types import FloatArray, Objective, StudentType


def fixed_latency_s(device: DeviceProfile, student: StudentType, input_bits: float = 0) -> float:
    """Seconds until the device has the portion: the input's transfer and the student's work."""
    return student.flops / device.flops_per_s + input_bits / (device.downlink_bits_per_s or np.inf)


def filter_latency_s(device: DeviceProfile, bits_per_filter: float) -> float:
    """Seconds that one filter of the portion takes on the uplink; 0 where the link is unknown."""
    return bits_per_filter / (device.uplink_bits_per_s or np.inf)


def fits(device: DeviceProfile, student: StudentType) -> bool:
    """Whether the device has the memory for the student. An unknown memory has no limit."""
    return device.memory_bytes is None or student.memory_bytes <= device.memory_bytes


def group_latency_s(
    times: FloatArray, outages: Sequence[float] | FloatArray, objective: Objective
) -> FloatArray:
    """When the group answers, [...] of the members' times [members, ...].

    guaranteed: the slowest, which holds as long as any member lives; best: the fastest; expected:
    the mean of the first answer, given that a member lives,
    sum_j l_(j) (1 - p_(j)) prod_{i<j} p_(i) / (1 - q) with l_(1) <= l_(2) <= …
    """
    if objective == "guaranteed":
        return np.asarray(times.max(axis=0))
    if objective == "best":
        return np.asarray(times.min(axis=0))
    order = np.argsort(times, axis=0, kind="stable")
    ordered = np.take_along_axis(times, order, axis=0)
    outage = np.asarray(outages)[order]
    silent = np.cumprod(outage, axis=0)  # all up to this one
    first = np.concatenate([np.ones_like(silent[:1]), silent[:-1]]) * (1 - outage)
    return np.asarray((ordered * first).sum(axis=0) / first.sum(axis=0))
