"""Which samples a site owes an answer, and what became of them.

A device counts as up from some seconds after its start until the instant before it is killed or
stopped. A sample is *owed* an answer if at least one device is up from its capture to its deadline.
It is not owed if no device was up at its capture (`unseen`), or if every device that was up went
away before the deadline and may have taken the sample along (`lost_with_all_that_saw_it`), or if
the site shed it (`shed`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.percentiles import quantiles_ms
from ddnn.core.pace import PaceHistory
from ddnn.local_site.site import StoredAnswer

EVERY_SAMPLE = PaceHistory()


def find_owed(
    up_times: Sequence[tuple[float, float]], samples: range, rate_hz: float, deadline_s: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each sample: whether any device was up at its capture, and whether one of these stayed
    until the deadline. up_times: from and until when a device was up, wall clock."""
    at_s = np.arange(samples.start, samples.stop) / rate_hz
    seen, stayed = np.zeros(len(samples), bool), np.zeros(len(samples), bool)
    for from_s, until_s in up_times:
        captured = (from_s <= at_s) & (at_s < until_s)
        seen |= captured
        stayed |= captured & (at_s + deadline_s <= until_s)
    return seen, stayed


def judge_samples(
    stored: Sequence[StoredAnswer],
    up_times: Sequence[tuple[float, float]],
    samples: range,
    rate_hz: float,
    deadline_s: float,
    pace: PaceHistory = EVERY_SAMPLE,
) -> dict[str, Any]:
    """The figures about samples; `unanswered`, `late` and `repeated` name the samples."""
    seen, stayed = find_owed(up_times, samples, rate_hz, deadline_s)
    shed = np.array([not pace.is_admitted(sample) for sample in samples], bool)
    times = Counter(record.answer.sample for record in stored)
    took_s = {
        record.answer.sample: record.first_answered_at_s - record.answer.sample / rate_hz
        for record in stored
        if record.answer.label >= 0
    }
    owed = [sample for sample, is_owed in zip(samples, stayed & ~shed, strict=True) if is_owed]
    excused = [
        sample for sample, is_owed in zip(samples, stayed & ~shed, strict=True) if not is_owed
    ]
    return {
        "samples": len(samples),
        "owed": len(owed),
        "unseen": int((~seen).sum()),
        "lost_with_all_that_saw_it": int((seen & ~stayed).sum()),
        "shed": int((seen & stayed & shed).sum()),
        "answered_though_not_owed": sum(sample in took_s for sample in excused),
        "unanswered": [sample for sample in owed if sample not in took_s],
        "late": {
            sample: round(took_s[sample], 3)
            for sample in owed
            if took_s.get(sample, 0.0) > deadline_s
        },
        "without_label": sum(record.answer.label < 0 for record in stored),
        "repeated": [sample for sample, count in times.items() if count > 1],
        "exits": dict(Counter(record.answer.exit for record in stored)),
        "quality": dict(Counter(record.answer.quality for record in stored)),
        "first_answer": {
            **quantiles_ms([took_s[sample] for sample in owed if sample in took_s]),
            "max_ms": round(1e3 * max(took_s.values(), default=math.nan), 1),
        },
    }
