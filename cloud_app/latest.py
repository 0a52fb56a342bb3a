"""The newest report of each node, for as long as it is fresh."""

from __future__ import annotations

import time
from typing import Generic, NamedTuple, TypeVar

Key = tuple[str, str]  # site and node
Report = TypeVar("Report")


class Latest(NamedTuple, Generic[Report]):
    """A report, `age_s` after it came."""

    site: str
    node: str
    age_s: float
    report: Report


class LatestReports(Generic[Report]):
    """One thread writes, any thread may list. Reports of more than `limit` nodes are not kept."""

    def __init__(self, fresh_s: float, limit: int) -> None:
        self._fresh_s, self._limit = fresh_s, limit
        self._reports: dict[Key, tuple[float, Report]] = {}

    def __len__(self) -> int:
        return len(self._reports)

    def add(self, key: Key, report: Report) -> None:
        """Keep a report; those that are not fresh any more make room."""
        now_s = time.monotonic()
        for other, (at_s, _) in list(self._reports.items()):
            if now_s - at_s > self._fresh_s:
                del self._reports[other]
        if key in self._reports or len(self._reports) < self._limit:
            self._reports[key] = now_s, report

    def remove(self, key: Key) -> None:
        self._reports.pop(key, None)

    def clear(self) -> None:
        self._reports.clear()

    def list_fresh(self) -> list[Latest[Report]]:
        """The fresh reports, by site and node."""
        now_s = time.monotonic()
        return [
            Latest(site, node, now_s - at_s, report)
            for (site, node), (at_s, report) in sorted(
                self._reports.copy().items(), key=lambda item: item[0]
            )
            if now_s - at_s <= self._fresh_s
        ]
