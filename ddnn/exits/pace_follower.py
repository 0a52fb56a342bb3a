"""A device's side of the site's pace: the lead edge's commands, while there is a lead edge."""

from __future__ import annotations

from ddnn.core.pace import Pace, PaceHistory
from ddnn.protocol.messages import PaceCommand

HOLD_S = 10.0  # how long the pace of a lead edge that is away stays in force


class PaceFollower:
    """`history` is replaced, never changed: other threads read it."""

    def __init__(self) -> None:
        self.history = PaceHistory()
        self._until_s: float | None = None  # None: the lead is there, or nothing is thinned

    def take(self, command: PaceCommand) -> Pace:
        pace = Pace(command.share, command.since)
        self.history = self.history.add(pace)
        return pace

    def follow(self, lead_is_online: bool, now_s: float) -> None:
        """Take every tick again where no lead edge has been there for a while."""
        if lead_is_online or self.history == PaceHistory():
            self._until_s = None
        elif self._until_s is None:
            self._until_s = now_s + HOLD_S
        elif now_s >= self._until_s:
            self.history, self._until_s = PaceHistory(), None

    def deadline_s(self) -> float | None:
        return self._until_s
