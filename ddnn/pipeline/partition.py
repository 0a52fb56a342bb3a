"""The cut of a network into stages that minimizes the slowest stage or link (FTPipeHD).

Notation of the paper: T_i(l) = C_i T^0(l) is the time of layer l on device i, with the capacity C_i
(larger = slower) and the time T^0(l) on the central node; a cut after layer l costs 2 D_l / B for
the activation and its gradient. A(j, n), the time per batch of the first j layers on the first n
devices, is

    A(j, n) = min over l < j of max{ A(l, n - 1), 2 D_l / B, sum over l <= q < j of C_n T^0(q) }.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import Array
from ddnn.errors import ConfigError, InfeasiblePlanError

Ranges = list[tuple[int, int]]
Bandwidths = Sequence[float] | float
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of each device, and what a layer takes there.

    limits_bytes: [devices], None where it is not limited. layer_bytes: [devices][layers].
    """

    limits_bytes: Sequence[float | None]
    layer_bytes: Sequence[Sequence[float]]


def partition(
    layer_times_s: Sequence[float],
    output_bytes: Sequence[float],
    capacities: Sequence[float],
    bandwidths_bytes_per_s: Bandwidths,
    memory: Memory | None = None,
) -> Ranges:
    """The ranges [(start, stop), ...] of layers of each device, in device order.

    layer_times_s: forward and backward of each layer on the central node, T^0 [layers].
    output_bytes: of each layer, D [layers]; that of the last layer is not used. capacities: C
    [devices]. bandwidths_bytes_per_s: of the links between neighbours [devices - 1], or one number.

    Every device gets at least one layer. O(layers^2 devices). Raises InfeasiblePlanError where
    there are more devices than layers or the layers do not fit into the memory.
    """
    problem = Problem.of(layer_times_s, output_bytes, capacities, bandwidths_bytes_per_s, memory)
    layers, devices = len(problem.times_s), len(problem.capacities)
    if devices > layers:
        raise InfeasiblePlanError(
            f"{layers} layers cannot be cut for {devices} devices; use at most {layers} devices"
        )
    best = np.full(layers + 1, np.inf)
    best[0] = 0.0
    choices = []
    for device in range(devices):
        # [l, j]: the stage from l up to j on this device, after the first l layers on the others.
        costs = np.maximum(
            np.maximum(best, problem.cut_s(device))[:, None], problem.stage_s(device)
        )
        choices.append(costs.argmin(axis=0))
        best = costs.min(axis=0)
    if not np.isfinite(best[layers]):
        raise InfeasiblePlanError(
            f"{layers} layers do not fit into the memory of {devices} devices in this order; "
            "add devices, or order them differently"
        )
    stops = [layers]
    for device in range(devices - 1, -1, -1):
        stops.append(int(choices[device][stops[-1]]))
    return list(pairwise(reversed(stops)))


def bottleneck_s(
    ranges: Sequence[tuple[int, int]],
    layer_times_s: Sequence[float],
    output_bytes: Sequence[float],
    capacities: Sequence[float],
    bandwidths_bytes_per_s: Bandwidths,
    memory: Memory | None = None,
) -> float:
    """Seconds per batch of these ranges in the steady state: the slowest stage or link.

    Infinite where a stage does not fit into the memory. Raises ConfigError unless the ranges cut
    all layers, one range for each device.
    """
    problem = Problem.of(layer_times_s, output_bytes, capacities, bandwidths_bytes_per_s, memory)
    try:
        ranges = [(index(start), index(stop)) for start, stop in ranges]
    except (TypeError, ValueError):
        raise ConfigError(f"ranges {ranges!r}; give pairs of whole numbers (start, stop)") from None
    ends = [0, *(stop for _, stop in ranges)]
    whole = [start for start, _ in ranges] == ends[:-1] and ends[-1] == len(problem.times_s)
    if not whole or len(ranges) != len(problem.capacities) or any(a >= b for a, b in ranges):
        raise ConfigError(
            f"ranges {list(ranges)} do not cut {len(problem.times_s)} layers for "
            f"{len(problem.capacities)} devices; give one range for each device, end to end"
        )
    slowest_s = 0.0
    for device, (start, stop) in enumerate(ranges):
        link_s = float(problem.cut_s(device)[start]) if device else 0.0
        slowest_s = max(slowest_s, link_s, float(problem.stage_s(device)[start, stop]))
    return slowest_s


@dataclass(frozen=True, slots=True)
class Problem:
    """The arguments of `partition`, checked, as arrays."""

    times_s: FloatArray  # [layers]
    bytes: FloatArray  # [layers + 1]: that travel where the cut is before this layer
    capacities: FloatArray  # [devices]
    bandwidths: FloatArray  # [devices - 1], bytes/s
    memory: Memory | None

    @classmethod
    def of(
        cls,
        layer_times_s: Sequence[float],
        output_bytes: Sequence[float],
        capacities: Sequence[float],
        bandwidths_bytes_per_s: Bandwidths,
        memory: Memory | None,
    ) -> Problem:
        times_s = _check("layer_times_s", layer_times_s, least=0.0)
        sizes = _check("output_bytes", output_bytes, least=0.0)
        factors = _check("capacities", capacities, least=np.nextafter(0.0, 1.0))
        links = read_array("bandwidths_bytes_per_s", bandwidths_bytes_per_s)
        if links.ndim == 0:
            links = np.full(max(len(factors) - 1, 0), links)
        layers, devices = len(times_s), len(factors)
        if not layers or len(sizes) not in (layers, layers - 1):
            raise ConfigError(
                f"{layers} layer times and {len(sizes)} output sizes; give one of each per layer"
            )
        if not devices or links.shape != (devices - 1,) or not (links > 0).all():
            raise ConfigError(
                f"{devices} capacities and bandwidths {links.tolist()}; give one capacity for each "
                "device and a positive bandwidth for each pair of neighbours"
            )
        if memory is not None and (
            len(memory.limits_bytes) != devices or np.shape(memory.layer_bytes) != (devices, layers)
        ):
            raise ConfigError(
                f"memory of {len(memory.limits_bytes)} devices with layer_bytes "
                f"{np.shape(memory.layer_bytes)}; expected {devices} and {(devices, layers)}"
            )
        cut_bytes = np.zeros(layers + 1)
        cut_bytes[1:layers] = sizes[: layers - 1]
        return cls(times_s, cut_bytes, factors, links, memory)

    def stage_s(self, device: int) -> FloatArray:
        """Seconds of the layers [l, j) on a device, [layers + 1, layers + 1]; infinite where there
        is no layer or they do not fit into the memory."""
        seconds: FloatArray = self.capacities[device] * _sum_ranges(self.times_s)
        limit_bytes = self.memory.limits_bytes[device] if self.memory is not None else None
        if self.memory is not None and limit_bytes is not None:
            needed = _sum_ranges(np.asarray(self.memory.layer_bytes[device], dtype=np.float64))
            seconds[needed > limit_bytes] = np.inf
        seconds[np.tril_indices(len(seconds))] = np.inf
        return seconds

    def cut_s(self, device: int) -> FloatArray:
        """Seconds of the link before a device where its stage starts at l, [layers + 1]."""
        return self.bytes * (2 / self.bandwidths[device - 1] if device else 0.0)


def _sum_ranges(values: FloatArray) -> FloatArray:
    """The sums of values[l:j], [values + 1, values + 1]."""
    ends = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(ends[None, :] - ends[:, None])


def read_array(name: str, values: Any) -> FloatArray:
    """Numbers as an array. Raises ConfigError where they are none, or lists of unequal lengths."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {values!r}; give numbers") from None


def _check(name: str, values: Sequence[float] | Array, least: float) -> FloatArray:
    array = read_array(name, values)
    if array.ndim != 1 or not np.isfinite(array).all() or not (array >= least).all():
        raise ConfigError(
            f"{name} is {values!r}; give a list of finite numbers, none below {least:.3g}"
        )
    return array
