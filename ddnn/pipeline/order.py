"""Which devices form the pipeline, and in which order: the order changes the bottleneck.

Unlike in FTPipeHD, where the list order is kept and every device is used, devices are ordered and
those that only slow the pipeline down stay spare. The central node stays first: it holds the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ddnn.errors import InfeasiblePlanError
from ddnn.pipeline.partition import FloatArray, Memory, Problem, bottleneck_s, partition

EXACT_DEVICES = 7  # up to here all orders and subsets are compared (about 0.1 s)
EVALUATIONS = 400  # of orders of more devices, at most
WORK = 3e7  # entries of tables that all evaluations together fill (about 1 s)
HALVINGS = 40  # of the interval in which the time per batch is searched
LEAST_GAIN = 1e-9  # relative: what counts as an improvement


@dataclass(frozen=True, slots=True)
class Layout:
    """A pipeline: devices in order, the range of layers of each, and the seconds per batch."""

    devices: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    bottleneck_s: float


@dataclass(frozen=True, slots=True)
class Devices:
    """All devices, the central node first, and the network's layers (see `partition`).

    rates_bytes_per_s: of each device's link to the broker, through which all messages pass: two
    devices reach each other at the lower of their rates. memory: see `Memory`; a layer takes the
    same at any position here.
    """

    layer_times_s: Sequence[float]
    output_bytes: Sequence[float]
    capacities: Sequence[float]
    rates_bytes_per_s: Sequence[float]
    memory: Memory | None = None

    def cut(self, order: Sequence[int]) -> Layout:
        """The best cut for the devices in this order; InfeasiblePlanError where there is none."""
        arguments = self._select(order)
        ranges = partition(*arguments)
        return Layout(tuple(order), tuple(ranges), bottleneck_s(ranges, *arguments))

    def measure_s(self, order: Sequence[int], ranges: Sequence[tuple[int, int]]) -> float:
        """The bottleneck of a given cut."""
        return bottleneck_s(ranges, *self._select(order))

    def _select(
        self, order: Sequence[int]
    ) -> tuple[Sequence[float], Sequence[float], list[float], list[float], Memory | None]:
        rates = [self.rates_bytes_per_s[i] for i in order]
        memory = self.memory and Memory(
            [self.memory.limits_bytes[i] for i in order],
            [self.memory.layer_bytes[i] for i in order],
        )
        links = [min(pair) for pair in pairwise(rates)]
        capacities = [self.capacities[i] for i in order]
        return self.layer_times_s, self.output_bytes, capacities, links, memory


def choose_layout(devices: Devices) -> Layout:
    """The layout with the smallest bottleneck, of few devices exactly.

    Of layouts that are equally fast, one with fewer devices. Raises InfeasiblePlanError where the
    layers fit into no layout that was looked at.
    """
    if len(devices.capacities) <= EXACT_DEVICES:
        return _choose_exactly(devices)
    return _improve_order(devices)


def _choose_exactly(devices: Devices) -> Layout:
    """Dynamic programme over sets of devices: the set, its last device, the layers covered."""
    count = len(devices.capacities)
    rates = np.asarray(devices.rates_bytes_per_s, dtype=np.float64)
    problem = Problem.of(
        devices.layer_times_s,
        devices.output_bytes,
        devices.capacities,
        np.ones(count - 1).tolist(),
        devices.memory,
    )
    stages_s = [problem.stage_s(i) for i in range(count)]
    best: dict[tuple[int, int], FloatArray] = {(1, 0): stages_s[0][0]}
    choices: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
    for mask in range(1, 1 << count, 2):  # the central node is in every set
        for last in range(1, count):
            before = mask & ~(1 << last)
            if before == mask:
                continue
            options = [i for i in range(count) if (before, i) in best]
            # [option, layers covered before]
            waits = np.stack(
                [
                    np.maximum(best[before, i], problem.bytes * 2 / min(rates[i], rates[last]))
                    for i in options
                ]
            )
            costs = np.maximum(waits.min(axis=0)[:, None], stages_s[last])
            best[mask, last] = costs.min(axis=0)
            choices[mask, last] = (
                costs.argmin(axis=0),
                np.asarray(options)[waits.argmin(axis=0)],
            )
    # The end of the list of layers needs no cut; fewer devices first among equally fast ones.
    mask, last = min(best, key=lambda key: (best[key][-1], key[0].bit_count(), key))
    if not np.isfinite(best[mask, last][-1]):
        raise _no_layout(devices)
    order, ranges, stop = [last], [], len(devices.layer_times_s)
    seconds = float(best[mask, last][-1])
    while last:
        starts, lasts = choices[mask, last]
        start = int(starts[stop])
        ranges.append((start, stop))
        mask, last, stop = mask & ~(1 << last), int(lasts[start]), start
        order.append(last)
    ranges.append((0, stop))
    return Layout(tuple(reversed(order)), tuple(reversed(ranges)), seconds)


def _improve_order(devices: Devices) -> Layout:
    """Local search from several orders: leave one out, add one, or exchange two."""
    count = len(devices.capacities)
    fastest = sorted(range(1, count), key=lambda i: (devices.capacities[i], i))
    used = fastest[: len(devices.layer_times_s) - 1]
    starts = [[0, *used], [0, *sorted(used)], *_fill_orders(devices)]
    found = [layout for start in starts if (layout := _try_cut(devices, start)) is not None]
    if not found:
        raise _no_layout(devices)
    best = min(found, key=lambda layout: layout.bottleneck_s)
    left = min(EVALUATIONS, int(WORK / (len(devices.layer_times_s) ** 2 * count)))
    while left > 0:
        improved = False
        for order in _list_neighbours(best.devices, count)[:left]:
            left -= 1
            layout = _try_cut(devices, order)
            limit_s = best.bottleneck_s * (1 - LEAST_GAIN)
            if layout is not None and layout.bottleneck_s < limit_s:
                best, improved = layout, True
                break
        if not improved:
            break
    return best


def _fill_orders(devices: Devices) -> list[list[int]]:
    """Orders that fill a given time per batch, for the least such time that covers all layers.

    At each cut the next device is the one that is filled best, or the one that takes most layers.
    Orders in which the layers do not fit into the memory are left out.
    """
    ends = _sum_up(devices.layer_times_s)
    orders = []
    for most_layers in (False, True):
        low_s, high_s = 0.0, float(ends[-1] * max(devices.capacities))
        order = _fill(devices, ends, high_s, most_layers)
        for _ in range(HALVINGS if order else 0):
            middle_s = (low_s + high_s) / 2
            filled = _fill(devices, ends, middle_s, most_layers)
            if filled is None:
                low_s = middle_s
            else:
                high_s, order = middle_s, filled
        if order:
            orders.append(order)
    return orders


def _sum_up(values: Sequence[float]) -> FloatArray:
    """The sums of the first 0, 1, … values."""
    return np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])


def _fill(
    devices: Devices, ends: FloatArray, limit_s: float, most_layers: bool
) -> list[int] | None:
    """Devices in an order in which each takes at most `limit_s`, and what its memory holds; None
    where layers are left."""
    factors = np.asarray(devices.capacities, dtype=np.float64)
    unused = np.ones(len(factors), bool)
    memory = devices.memory
    held = [] if memory is None else [_sum_up(values) for values in memory.layer_bytes]
    order: list[int] = []
    at = 0
    while at < len(ends) - 1:
        stops = np.searchsorted(ends, ends[at] + limit_s / factors, side="right") - 1
        for device, sums in enumerate(held):
            most_bytes = memory.limits_bytes[device] if memory is not None else None
            if most_bytes is not None:
                fits = np.searchsorted(sums, sums[at] + most_bytes, side="right") - 1
                stops[device] = min(stops[device], fits)
        gains = stops - at if most_layers else factors * (ends[stops] - ends[at])
        gains = np.where(unused & (stops > at), gains, 0.0)
        device = int(gains.argmax()) if order else 0  # the central node is first
        if gains[device] <= 0:
            return None
        order.append(device)
        unused[device] = False
        at = int(stops[device])
    return order


def _list_neighbours(order: Sequence[int], count: int) -> list[list[int]]:
    """Orders that differ by one device or by one exchange; the central node stays first."""
    order = list(order)
    spare = [i for i in range(count) if i not in order]
    found = [order[:k] + order[k + 1 :] for k in range(1, len(order))]
    found += [[*order[:k], i, *order[k:]] for i in spare for k in range(1, len(order) + 1)]
    for a in range(1, len(order)):
        for b in range(a + 1, len(order)):
            swapped = list(order)
            swapped[a], swapped[b] = swapped[b], swapped[a]
            found.append(swapped)
    return found


def _try_cut(devices: Devices, order: Sequence[int]) -> Layout | None:
    try:
        return devices.cut(order)
    except InfeasiblePlanError:
        return None


def _no_layout(devices: Devices) -> InfeasiblePlanError:
    return InfeasiblePlanError(
        f"{len(devices.layer_times_s)} layers do not fit into the memory of "
        f"{len(devices.capacities)} devices; add devices or memory"
    )
