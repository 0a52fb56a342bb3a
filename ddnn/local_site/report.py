"""The figures of `ddnn demo --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ddnn.local_site.site import Site
from ddnn.protocol.drops import drops
from ddnn.protocol.messages import Answer
from ddnn.protocol.offload_state import OffloadState

TIERS = ("local", "edge", "cloud", "device")


def make_report(site: Site, samples: range, delivered: Collection[int]) -> dict[str, Any]:
    """The figures of these samples, by the answers that the site's watcher holds.

    delivered: the samples whose answers have left the nodes
    """
    watcher, manifest, labels = site.watcher, site.config.manifest, site.config.labels
    answers = [watcher.answers[sample] for sample in samples if sample in watcher.answers]
    by_tier = {tier: [a for a in answers if a.exit == tier] for tier in TIERS}

    def accuracy(of: list[Answer]) -> float | None:
        return _mean([a.label == labels[site.frame(a.sample)] for a in of])

    members = len(manifest.hierarchy.devices)
    sent = [a for a in answers if a.exit != "device"]
    payload = _mean([a.payload_bytes / members for a in sent])
    wire = _mean([a.wire_bytes / members for a in sent])
    expected = [a.expected_accuracy for a in answers if a.expected_accuracy is not None]
    dropped: Counter[str] = Counter()
    for stats in watcher.stats.values():
        dropped.update(drops(stats.counts))
    shed = sum(sample not in watcher.answers and not site.is_expected(sample) for sample in samples)
    report = {
        "samples": len(samples),
        "answered": len(answers),
        "shed": shed,
        "unanswered": len(samples) - len(answers) - shed,
        "answered_by_deadline": sum(
            watcher.first_s[a.sample] - a.captured_at_s <= site.deadline_s for a in answers
        ),
        "undelivered": sum(sample not in delivered for sample in samples),
        "accuracy": {
            **{tier: accuracy(of) for tier, of in by_tier.items()},
            "overall": accuracy(answers),
        },
        "expected_accuracy": _mean(expected),
        "exit_share": {tier: len(of) / max(1, len(answers)) for tier, of in by_tier.items()},
        "bytes_per_sample_per_device": {"payload": payload, "wire": wire},
        "raw_bytes": manifest.raw_bytes,
        "reduction": manifest.raw_bytes / payload if payload else None,
        "latency_ms": {tier: _latency_ms(of) for tier, of in by_tier.items() if of},
        "quality": {
            "full": sum(a.quality == "full" for a in answers),
            "degraded": sum(a.quality == "degraded" for a in answers),
            "late": sum(a.late for a in answers),
        },
        "drops": dict(dropped),
        "bundle": manifest.name,
    }
    if watcher.offload is not None:
        report["offload"] = _describe_offload(watcher.offload)
    return report


def _latency_ms(answers: list[Answer]) -> dict[str, float]:
    latencies_ms = [1e3 * answer.latency_s for answer in answers]
    return {f"p{q}": round(float(np.percentile(latencies_ms, q)), 3) for q in (50, 99)}


def _describe_offload(state: OffloadState) -> dict[str, Any]:
    """How the offloaded section was computed, by the last state that the edge published."""
    return {
        "title": state.title,
        "description": state.description,
        "pieces": state.pieces,
        "live_pieces": state.live_pieces,
        "enough": state.enough,
        "combined": state.combined,
        "combined_partly": state.combined_partly,
        "computed_here": state.computed_here,
        "given_up": state.given_up,
        "gather_ms": round(state.gather_ms, 3),
        "combine_ms": round(state.combine_ms, 4),
        "workers": {
            name: {"state": worker.state, "used": worker.used, "late": worker.late}
            for name, worker in state.workers.items()
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
