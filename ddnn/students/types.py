"""What is planned with: types of students, the objectives, and what every input must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.errors import ConfigError

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
Objective = Literal["guaranteed", "expected", "best"]
"""Which member's answer counts as the group's: the slowest, the first on average, the fastest."""

SYMMETRY_TOLERANCE = 1e-6  # of the largest weight: a graph summed in float32 is not quite symmetric


class StudentType(msgspec.Struct, frozen=True):
    """A student network that a group can run.

    flops: for one input; memory_bytes: what a device needs free to run it; capacity: how many of
    the teacher's filters it can learn. Raises ConfigError where a value is impossible.
    """

    name: str
    flops: float
    memory_bytes: int
    capacity: int

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a student type has no name; give each a name of its own")
        if not (math.isfinite(self.flops) and self.flops > 0):
            raise ConfigError(f"student {self.name}: {self.flops} flops; give a positive number")
        for field in ("memory_bytes", "capacity"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 1 and value == int(value)):
                raise ConfigError(
                    f"student {self.name}: {field} is {value}; give a whole number from 1"
                )


def check_devices(devices: Sequence[DeviceProfile]) -> tuple[DeviceProfile, ...]:
    """The devices; ConfigError where there is none, or two have one name."""
    if not devices:
        raise ConfigError("no devices; give at least one DeviceProfile")
    _check_names([device.name for device in devices], "devices")
    return tuple(devices)


def check_students(students: Sequence[StudentType]) -> tuple[StudentType, ...]:
    """The types of students; ConfigError where there is none, or two have one name."""
    if not students:
        raise ConfigError("no students; give at least one StudentType")
    _check_names([student.name for student in students], "students")
    return tuple(students)


def _check_names(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{what}: {', '.join(twice)} more than once; give each a name of its own")


def check_filter_graph(filter_graph: Any) -> FloatArray:
    """The graph as float64 [filters, filters]; ConfigError unless symmetric and 0 or more."""
    try:
        graph = np.asarray(filter_graph, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError("filter_graph: expected an array of numbers [filters, filters]") from None
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1] or not graph.size:
        raise ConfigError(
            f"filter_graph of shape {graph.shape}: expected [filters, filters] with one filter "
            "or more"
        )
    if not np.isfinite(graph).all() or graph.min() < 0:
        raise ConfigError("filter_graph: a weight is negative or no finite number")
    if np.abs(graph - graph.T).max() > SYMMETRY_TOLERANCE * graph.max():
        raise ConfigError(
            "filter_graph is not symmetric: the weight of filters i and j must be that of j and i"
        )
    return (graph + graph.T) / 2


def check_objective(objective: str) -> None:
    """ConfigError where there is no such objective."""
    if objective not in get_args(Objective):
        raise ConfigError(
            f"objective {objective!r}; expected one of {', '.join(get_args(Objective))}"
        )


def check_bound(p_th: float) -> None:
    """ConfigError where `p_th` is no probability above 0."""
    if not 0 < p_th <= 1:
        raise ConfigError(
            f"p_th is {p_th}; give the outage probability that a group may have, above 0 and at "
            "most 1"
        )
