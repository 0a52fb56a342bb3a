"""Messages a sender may have in a second, checked before anything of them is decoded.

One sender that publishes far more than its peers takes processor time that belongs to all. What is
above its budget is dropped: newer messages of it, and those of all others, are read.
"""

from __future__ import annotations

from collections import Counter

from ddnn.protocol.topics import ROOT

PERIOD_S = 0.25
FLOOR_PER_S = 200.0  # a sender of less is never limited
MAX_STALL_S = 2.0  # so long a stall may be, and what came meanwhile is read in one period
FURTHER = 4.0  # of what the middle one of its peers sends
_PREFIX = ROOT + "/"
# Data that comes too late after a drop anyway; state and confirmations are never dropped here.
_BRANCHES = frozenset({"scores", "features", "uplink", "verdict", "time", "result"})


class SenderBudget:
    """Counts the messages of each topic; peers publish on the same branch of a site."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._floor = FLOOR_PER_S * PERIOD_S  # messages of a topic in this period
        self._counts: Counter[str] = Counter()  # by topic, in this period
        self._limits: dict[str, float] = {}  # by branch of a site: messages in a period

    def admit(self, topic: str, now_s: float) -> bool:
        """Count a message; False where its sender has no budget left in this period."""
        if now_s - self._began_s >= PERIOD_S:
            self._begin(now_s)
        count = self._counts[topic] + 1
        self._counts[topic] = count
        if count <= self._floor:
            return True
        branch = _find_branch(topic)
        return branch is None or count <= self._limits.get(branch, float("inf"))

    def _begin(self, now_s: float) -> None:
        """Begin a period: the limits follow from what came in the one before."""
        by_branch: dict[str, list[int]] = {}
        for topic, count in self._counts.items():
            branch = _find_branch(topic)
            if branch is not None:
                by_branch.setdefault(branch, []).append(count)
        self._floor = FLOOR_PER_S * min(max(now_s - self._began_s, PERIOD_S), MAX_STALL_S)
        self._limits = {
            branch: max(self._floor, FURTHER * sorted(counts)[(len(counts) - 1) // 2])
            for branch, counts in by_branch.items()
            if len(counts) > 1  # a sender without peers has no limit
        }
        self._counts.clear()
        self._began_s = now_s


def _find_branch(topic: str) -> str | None:
    """Site and branch of a topic of data: the part that it has in common with its peers."""
    if not topic.startswith(_PREFIX):
        return None
    site, _, rest = topic[len(_PREFIX) :].partition("/")
    branch, _, sender = rest.partition("/")
    return f"{site}/{branch}" if sender and branch in _BRANCHES else None
