"""Sums over the answers, updated in the transaction that changes the answers.

Thereby the page over a million answers takes as long as the page over a hundred.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from math import floor
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, select

from cloud_app.store.insert import insert_or_add
from cloud_app.store.records import Bucket, Histogram, Record
from cloud_app.store.schema import (
    BUCKETS,
    COUNTERS,
    LATENCY_BOUNDS_S,
    ROLLUP_STEPS_S,
    ROLLUPS,
    SUMS,
    TOTALS,
)
from cloud_app.store.statistics import quantile

MAX_BYTES = 1 << 31  # per sample; 62 devices with messages of the greatest size stay below
MAX_LATENCY_S = 3600.0
MAX_BUCKETS = 10_000

_Key = tuple[str | int, ...]


class Tally:
    """The changes of one transaction to TOTALS, ROLLUPS and COUNTERS."""

    def __init__(self) -> None:
        self._totals: defaultdict[_Key, list[float]] = _make_zeros(len(SUMS))
        self._rollups: defaultdict[_Key, list[float]] = _make_zeros(len(SUMS) + len(BUCKETS))
        self._counters: defaultdict[_Key, list[float]] = _make_zeros(1 + len(BUCKETS))

    def add(self, record: Record) -> None:
        """Count a sample that was not stored before."""
        self._count(record, 1.0)
        answer = record.answer
        counter = self._counters[record.site, answer.exit, answer.quality]
        counter[0] += min(max(answer.latency_s, 0.0), MAX_LATENCY_S)
        counter[1 + find_bucket(answer.latency_s)] += 1

    def move(self, old: Record, new: Record) -> None:
        """Count as `new` what was counted as `old`; the counters do not change."""
        self._count(old, -1.0)
        self._count(new, 1.0)

    def write(self, link: Connection) -> None:
        _write_sums(link, TOTALS, self._totals)
        _write_sums(link, ROLLUPS, self._rollups)
        _write_sums(link, COUNTERS, self._counters)

    def _count(self, record: Record, sign: float) -> None:
        contributions = _compute_contributions(record)
        exit_, quality = record.answer.exit, record.answer.quality
        sums = [self._totals[record.site, exit_, quality]]
        for step_s in ROLLUP_STEPS_S:
            start_s = floor(record.first_answered_at_s / step_s) * step_s
            rollup = self._rollups[record.site, step_s, start_s, exit_, quality]
            rollup[len(SUMS) + find_bucket(record.answer.latency_s)] += sign
            sums.append(rollup)
        for place in sums:
            for i, contribution in enumerate(contributions):
                place[i] += sign * contribution


def find_bucket(latency_s: float) -> int:
    """The index of a latency's bucket in the histogram."""
    return bisect_left(LATENCY_BOUNDS_S, latency_s)


def _compute_contributions(record: Record) -> tuple[float, ...]:
    """Compute what a record adds to each of SUMS.

    Values are clamped to their possible range: one absurd value must not spoil the sums forever.
    """
    answer, correct = record.answer, record.correct
    expected = answer.expected_accuracy
    return (
        1,
        correct is not None,
        correct is True,
        record.labelled is not None,
        answer.late,
        expected is not None,
        min(max(expected or 0.0, 0.0), 1.0),
        len(answer.members),
        min(answer.payload_bytes, MAX_BYTES),
        min(answer.wire_bytes, MAX_BYTES),
    )


def _make_zeros(length: int) -> defaultdict[_Key, list[float]]:
    return defaultdict(lambda: [0.0] * length)


def _write_sums(link: Connection, table: Table, changes: dict[_Key, list[float]]) -> None:
    """Add to the rows with these keys."""
    rows = [
        dict(zip(table.columns.keys(), (*key, *sums), strict=True))
        for key, sums in changes.items()
        if any(sums)
    ]
    if rows:
        insert_or_add(link, table, rows)


# ------------------------------------------------------------------ reading


def select_totals(site: str | None) -> Select[Any]:
    """TOTALS per exit and quality."""
    return _select_sums(TOTALS, SUMS, site)


def select_counters(site: str | None) -> Select[Any]:
    """COUNTERS per exit and quality."""
    return _select_sums(COUNTERS, ("latency_s", *BUCKETS), site)


def count_samples(row: Row[Any]) -> int:
    """How many samples a row of COUNTERS counts."""
    return sum(_read_latencies(row))


def make_histograms(rows: Sequence[Row[Any]]) -> dict[str, Histogram]:
    """Rows of COUNTERS, by exit."""
    result = {}
    for exit_, some in groupby(sorted(rows, key=_read_exit), _read_exit):
        own = list(some)
        counts = tuple(sum(column) for column in zip(*map(_read_latencies, own), strict=True))
        result[exit_] = Histogram(counts, sum(counts), sum(row.latency_s for row in own))
    return result


def select_series(first_s: float, last_s: float, step_s: int, site: str | None) -> Select[Any]:
    """ROLLUPS from `first_s` (a multiple of `step_s`) on, per step, exit and quality."""
    level_s = max(level_s for level_s in ROLLUP_STEPS_S if step_s % level_s == 0)
    start_s = ROLLUPS.c.start_s - ROLLUPS.c.start_s % step_s
    return _filter_site(
        select(
            start_s.label("bucket_s"),
            ROLLUPS.c.exit,
            ROLLUPS.c.quality,
            *(func.sum(ROLLUPS.c[name]).label(name) for name in (*SUMS, *BUCKETS)),
        )
        .where(
            ROLLUPS.c.step_s == level_s,
            ROLLUPS.c.start_s >= first_s,
            ROLLUPS.c.start_s <= last_s,
        )
        .group_by(start_s, ROLLUPS.c.exit, ROLLUPS.c.quality),
        ROLLUPS,
        site,
    )


def make_bucket(start_s: int, rows: Sequence[Row[Any]]) -> Bucket:
    """Combine the rows of one step."""

    def add_up(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows))

    exits: defaultdict[str, int] = defaultdict(int)
    latencies: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(BUCKETS))
    for row in rows:
        exits[row.exit] += round(row.answered)
        for i, count in enumerate(_read_latencies(row)):
            latencies[row.exit][i] += count
    expected = round(add_up("expected"))
    answered = {exit_: count for exit_, count in exits.items() if count}
    return Bucket(
        start_s=start_s,
        exits=answered,
        degraded=round(sum(row.answered for row in rows if row.quality == "degraded")),
        late=round(add_up("late")),
        known=round(add_up("known")),
        correct=round(add_up("correct")),
        expected=expected,
        expected_accuracy=add_up("expected_accuracy") / expected if expected else None,
        members=round(add_up("members")),
        payload_bytes=add_up("payload_bytes"),
        wire_bytes=add_up("wire_bytes"),
        p50_s={exit_: quantile(LATENCY_BOUNDS_S, latencies[exit_], 0.5) for exit_ in answered},
        p99_s={exit_: quantile(LATENCY_BOUNDS_S, latencies[exit_], 0.99) for exit_ in answered},
    )


def _select_sums(table: Table, names: Sequence[str], site: str | None) -> Select[Any]:
    """The sums of these columns per exit and quality."""
    sums = (func.sum(table.c[name]).label(name) for name in names)
    query = select(table.c.exit, table.c.quality, *sums)
    return _filter_site(query.group_by(table.c.exit, table.c.quality), table, site)


def _filter_site(query: Select[Any], table: Table, site: str | None) -> Select[Any]:
    return query if site is None else query.where(table.c.site == site)


def _read_latencies(row: Row[Any]) -> list[int]:
    return [round(getattr(row, name)) for name in BUCKETS]


def _read_exit(row: Row[Any]) -> str:
    return str(row.exit)
