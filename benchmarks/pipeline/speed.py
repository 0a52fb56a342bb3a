"""Time per batch against a static cut of equal parts, one device and the best possible cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from benchmarks.harness.report import Report
from benchmarks.pipeline.simulated import SimulatedPipeline
from ddnn.pipeline.order import Devices
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.stage import LayerProfile

RATIOS = (1, 2, 5, 10)
FIRST, LAST, END = 140, 240, 280  # the time is measured between the first two batches
EXACT = 6  # up to so many devices all orders of all subsets are compared


def measure_speed(profiles: Sequence[LayerProfile], rate_bytes_per_s: float) -> list[Report]:
    """One row for each set of devices."""
    rows = []
    for count in (3, 6, 10):
        for ratio in RATIOS:
            if count == 3:
                capacities = [1.0, 1.0, float(ratio)]
            else:
                capacities = [ratio ** (i / (count - 1)) for i in range(count)]
            rows.append(measure_row(profiles, capacities, ratio, rate_bytes_per_s))
    return rows


def measure_row(
    profiles: Sequence[LayerProfile], capacities: Sequence[float], ratio: int, rate: float
) -> Report:
    """Ours, the static cut, one device and the best cut, for these devices."""

    def measure(settings: Settings, used: Sequence[float] = capacities) -> float:
        return SimulatedPipeline(profiles, used, settings, rate).measure_batch_s(FIRST, LAST)

    ours = SimulatedPipeline(profiles, capacities, Settings(END), rate)
    ours_s = ours.measure_batch_s(FIRST, LAST)
    static = Settings(END, equal_capacities=True, choose_order=False, repartition_at=(0, 0))
    static_s, alone_s = measure(static), measure(Settings(END), capacities[:1])
    deep_s = measure(Settings(END, deep=True))
    driver = ours.central.driver
    row: Report = {
        "devices": len(capacities),
        "ratio": ratio,
        "batch_s": round(ours_s, 4),
        "speedup_over_pipedream": round(static_s / ours_s, 2),
        "speedup_over_one_device": round(alone_s / ours_s, 2),
        "deep_speedup_over_pipedream": round(measure(replace(static, deep=True)) / deep_s, 2),
        "deep_speedup_over_one_device": round(alone_s / deep_s, 2),
        # If work could be divided at will and links cost nothing.
        "divisible_bound_over_one_device": round(sum(1 / c for c in capacities), 2),
        "devices_used": len(driver.arrangement.nodes) if driver.arrangement else 0,
        "layouts": sum(entry.kind == "layout" for entry in driver.progress.timeline),
    }
    if ratio == 1:
        row["share_of_ideal_scaling"] = round(alone_s / ours_s / len(capacities), 3)
        row["deep_share_of_ideal_scaling"] = round(alone_s / deep_s / len(capacities), 3)
    if len(capacities) <= EXACT:
        best_s = find_best_s(profiles, capacities, rate)
        row["over_best_cut"] = round(ours_s / best_s, 3)
        row["deep_over_best_cut"] = round(deep_s / best_s, 3)
    return row


def find_best_s(
    profiles: Sequence[LayerProfile], capacities: Sequence[float], rate: float
) -> float:
    """The bottleneck of the best contiguous cut over all orders of all subsets, by enumeration."""
    devices = Devices(
        [p.forward_s + p.backward_s for p in profiles],
        [p.output_bytes for p in profiles],
        capacities,
        [rate] * len(capacities),
    )
    orders = (
        (0, *order)
        for used in range(len(capacities))
        for order in permutations(range(1, len(capacities)), used)
    )
    return min(devices.cut(order).bottleneck_s for order in orders)
