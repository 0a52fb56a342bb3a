"""What copies cost: the time per batch against the periods k (chain) and m (global)."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.report import Report
from benchmarks.pipeline.simulated import SimulatedPipeline
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.stage import LayerProfile

FIRST, LAST = 40, 240
NEVER = 100_000
PERIODS = ((1, 10), (5, 10), (10, 50), (20, 100), (50, 200))
CAPACITIES = (1.0, 1.0, 1.0)


def measure_replication(profiles: Sequence[LayerProfile], rates: Sequence[float]) -> list[Report]:
    """One row for each link and pair of periods; the overhead over training without copies."""
    rows = []
    for rate in rates:
        plain_s = measure_batch_s(profiles, rate, NEVER, NEVER)
        for k, m in PERIODS:
            seconds = measure_batch_s(profiles, rate, k, m)
            rows.append(
                {
                    "link_mbit_per_s": round(8 * rate / 1e6),
                    "k": k,
                    "m": m,
                    "batch_s": round(seconds, 4),
                    "overhead": round(seconds / plain_s - 1, 4),
                }
            )
    return rows


def measure_batch_s(profiles: Sequence[LayerProfile], rate: float, k: int, m: int) -> float:
    settings = Settings(LAST + 20, chain_every=k, global_every=m, repartition_at=(0, 0))
    return SimulatedPipeline(profiles, CAPACITIES, settings, rate).measure_batch_s(FIRST, LAST)
