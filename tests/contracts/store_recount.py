"""The store's sums, computed by the plainest way: from all rows, one after another."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
import numpy as np
import pytest

from cloud_app.store import Bucket, Record, Store, Summary
from cloud_app.store.schema import METADATA
from ddnn.exits.hierarchy import EXITS
from ddnn.exits.intervals import compute_wilson_interval


def clear(store: Store) -> None:
    with store.database.write() as link:
        for table in METADATA.tables.values():
            link.execute(table.delete())


def rows(store: Store) -> dict[tuple[str, int], Record]:
    records = store.list_newest(10**6)
    found = {(record.site, record.answer.sample): record for record in records}
    assert len(found) == len(records)
    return found


def mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None


def recount(records: list[Record]) -> dict[str, Any]:
    """The summary by the plainest way there is."""
    answers = [record.answer for record in records]
    right = [
        (record.answer.exit, record.answer.label == record.truth)
        for record in records
        if record.truth is not None and record.truth >= 0
    ]
    devices = sum(len(a.members) for a in answers)

    def accuracy(right: list[bool]) -> dict[str, Any]:
        known = len(right)
        interval = compute_wilson_interval(sum(right), known) if right else None
        return {"known": known, "accuracy": mean(right), "interval": interval}

    def recount_exit(name: str) -> dict[str, Any]:
        times = [a.latency_s for a in answers if a.exit == name]
        return {
            "answered": len(times),
            "share": len(times) / len(answers) if answers else 0.0,
            "p50": np.percentile(times, 50) if times else None,
            "p99": np.percentile(times, 99) if times else None,
            **accuracy([is_right for exit_, is_right in right if exit_ == name]),
        }

    return {
        "answered": len(answers),
        "labelled": sum(record.labelled is not None for record in records),
        "expected": mean([a.expected_accuracy for a in answers if a.expected_accuracy is not None]),
        "late": sum(a.late for a in answers),
        "quality": {q: Counter(a.quality for a in answers)[q] for q in ("full", "degraded")},
        "payload": sum(a.payload_bytes for a in answers) / devices if devices else None,
        "wire": sum(a.wire_bytes for a in answers) / devices if devices else None,
        **accuracy([is_right for _, is_right in right]),
        **{name: recount_exit(name) for name in EXITS},
    }


def flatten(summary: Summary) -> dict[str, Any]:
    return {
        "answered": summary.answered,
        "labelled": summary.labelled,
        "known": summary.known,
        "accuracy": summary.accuracy,
        "interval": summary.accuracy_interval,
        "expected": summary.expected_accuracy,
        "late": summary.late,
        "quality": summary.quality,
        "payload": summary.payload_bytes,
        "wire": summary.wire_bytes,
        **{
            name: {
                "answered": of.answered,
                "share": of.share,
                "known": of.known,
                "accuracy": of.accuracy,
                "interval": of.accuracy_interval,
                "p50": of.latency_p50_s,
                "p99": of.latency_p99_s,
            }
            for name, of in summary.exits.items()
        },
    }


def recount_series(records: list[Record], step_s: int) -> dict[int, dict[str, Any]]:
    """The series by the plainest way there is; None of the steps without an answer."""
    steps = defaultdict(list)
    for record in records:
        steps[int(record.first_answered_at_s // step_s) * step_s].append(record)
    counts = {}
    for start_s, own in steps.items():
        whole = recount(own)
        answers = [record.answer for record in own]
        counts[start_s] = {
            "exits": dict(Counter(a.exit for a in answers)),
            "degraded": whole["quality"]["degraded"],
            "late": whole["late"],
            "known": whole["known"],
            "correct": round((whole["accuracy"] or 0) * whole["known"]),
            "expected": sum(a.expected_accuracy is not None for a in answers),
            "expected_accuracy": whole["expected"],
            "members": sum(len(a.members) for a in answers),
            "payload_bytes": sum(a.payload_bytes for a in answers),
            "wire_bytes": sum(a.wire_bytes for a in answers),
        }
    return counts


def flatten_series(buckets: list[Bucket]) -> dict[int, dict[str, Any]]:
    flattened = {}
    for bucket in buckets:
        fields = msgspec.structs.asdict(bucket)
        assert fields.pop("p50_s").keys() == fields.pop("p99_s").keys() == bucket.exits.keys()
        if fields["exits"]:
            flattened[fields.pop("start_s")] = fields
    return flattened


def assert_same(got: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same(got[name], value, f"{where}.{name}")
    elif expected is None:
        assert got is None, where
    else:
        assert got == pytest.approx(expected, rel=1e-9), where
