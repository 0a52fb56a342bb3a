"""Open jobs, each with a deadline."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Generic, TypeVar

Job = TypeVar("Job")
Key = TypeVar("Key")


class Jobs(Generic[Key, Job]):
    """Jobs by key, in the order they were opened, with deadlines.

    At most `limit` are open: opening one more returns the oldest, so that the caller ends it
    (latest wins). The keys of the last `remember` closed jobs are known with the time at which they
    were opened, which distinguishes late and repeated parts from those of new jobs.
    """

    def __init__(self, limit: int = 1024, remember: int = 8192) -> None:
        self._limit = limit
        self._remember = remember
        self._open: OrderedDict[Key, Job] = OrderedDict()
        self._alarm: dict[Key, int] = {}  # the number of the deadline in force, until it has come
        self._opened_s: dict[Key, float] = {}
        self._closed: OrderedDict[Key, float] = OrderedDict()
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: Key) -> Job | None:
        return self._open.get(key)

    def items(self) -> list[tuple[Key, Job]]:
        """The open jobs, oldest first; a copy, so that the caller may close them."""
        return list(self._open.items())

    def values(self) -> list[Job]:
        """The open jobs, oldest first; a copy."""
        return list(self._open.values())

    def opened_s(self, key: Key) -> float | None:
        """When the job was opened, open or closed; None where it is unknown."""
        return self._opened_s.get(key, self._closed.get(key))

    def is_closed(self, key: Key) -> bool:
        return key in self._closed

    def open(self, key: Key, job: Job, now_s: float, due_s: float) -> tuple[Key, Job] | None:
        """Open a job; returns the oldest one, closed, where there are too many."""
        self._open[key] = job
        self._opened_s[key] = now_s
        self.reschedule(key, due_s)
        if len(self._open) <= self._limit:
            return None
        oldest = next(iter(self._open))
        return oldest, self.close(oldest)

    def reschedule(self, key: Key, due_s: float) -> None:
        """Replace the deadline of an open job."""
        self._count += 1
        self._alarm[key] = self._count
        heapq.heappush(self._heap, (due_s, self._count, key))

    def close(self, key: Key) -> Job:
        """Take the job out and remember its key."""
        job = self._open.pop(key)
        self._alarm.pop(key, None)
        self._closed[key] = self._opened_s.pop(key)
        if len(self._closed) > self._remember:
            self._closed.popitem(last=False)
        return job

    def due(self, now_s: float) -> list[Key]:
        """The keys whose deadline has come, earliest first; each once per deadline."""
        keys = []
        while self._heap and self._heap[0][0] <= now_s:
            _, number, key = heapq.heappop(self._heap)
            if self._alarm.get(key) == number:
                del self._alarm[key]
                keys.append(key)
        return keys

    def next_due_s(self) -> float | None:
        while self._heap and self._alarm.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
