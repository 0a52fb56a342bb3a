"""Measures the speed and the memory of this computer at the start of a node."""

from __future__ import annotations

import os
import time

import numpy as np

from ddnn.core.device import DeviceProfile

SIDE = 384  # of the matrices that are multiplied: 0.1 GFLOP
REPETITIONS = 3


def measure_profile(name: str) -> DeviceProfile:
    """Speed and free memory. Links and outages are not measured here."""
    return DeviceProfile(name, measure_flops_per_s(), read_free_bytes())


def measure_flops_per_s() -> float:
    """Floating-point operations per second of one matrix product, the best of a few."""
    matrix = np.ones((SIDE, SIDE), np.float32)
    best_s = float("inf")
    for _ in range(REPETITIONS):
        started_s = time.perf_counter()
        matrix @ matrix
        best_s = min(best_s, time.perf_counter() - started_s)
    return 2 * SIDE**3 / max(best_s, 1e-9)


def read_free_bytes() -> int | None:
    """Read how much memory is free; None where the system does not report it."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") or None
    except (ValueError, OSError):
        return None
