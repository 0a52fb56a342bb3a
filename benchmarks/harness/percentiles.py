"""Figures of measured times: means, quantiles and ratios of quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
Milliseconds = float | None  # None: nothing was measured


def quantiles_ms(seconds: Sequence[float], digits: int = 2) -> dict[str, Milliseconds]:
    """p50 and p99 in milliseconds."""
    if not len(seconds):
        return {"p50_ms": None, "p99_ms": None}
    p50, p99 = np.percentile(np.asarray(seconds), [50, 99])
    return {"p50_ms": round(1e3 * float(p50), digits), "p99_ms": round(1e3 * float(p99), digits)}


def summarize_ms(seconds: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """Number of samples, mean, p50, p99 and maximum in milliseconds."""
    mean, most = (
        (round(1e3 * float(of(seconds)), digits) if len(seconds) else None)
        for of in (np.mean, np.max)
    )
    quantiles = quantiles_ms(seconds, digits)
    return {"samples": len(seconds), "mean_ms": mean, **quantiles, "max_ms": most}


def compare_quantiles(seconds: Sequence[float], baseline_s: Sequence[float]) -> dict[str, Any]:
    """Ratios of p50 and p99 to the baseline's, and the 95 % interval of the latter.

    The interval is that of a bootstrap with a fixed seed. Neither sequence may be empty.
    """
    these, those = np.asarray(seconds), np.asarray(baseline_s)
    random = np.random.default_rng(0)
    resampled = [
        np.percentile(random.choice(these, len(these)), 99)
        / np.percentile(random.choice(those, len(those)), 99)
        for _ in range(RESAMPLES)
    ]
    return {
        "ratio_p50": round(float(np.median(these) / np.median(those)), 3),
        "ratio_p99": round(float(np.percentile(these, 99) / np.percentile(those, 99)), 3),
        "ratio_p99_95": [round(float(q), 3) for q in np.percentile(resampled, [2.5, 97.5])],
    }
