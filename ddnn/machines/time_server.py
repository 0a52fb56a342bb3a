"""The lead edge's side of site time: it replies to devices, and counts how often time went back.

It also knows which devices use its time, so that the stamps in their messages give their age.
"""

from __future__ import annotations

import math

from ddnn.core.site_time import MAX_EPOCH, SET_BACK_S, SiteTime
from ddnn.protocol.machine import Effect, Event, KeepTime, Log, Now, Publish, Received
from ddnn.protocol.messages import TimeReply, TimeRequest
from ddnn.protocol.topics import Kind, Topic, topic_filter

KEEP_EVERY_S = 2.0  # between two writes of the time
AHEAD_S = 10.0  # a larger step ahead is reported
GROWTH = 16  # epochs, at most, that the requests of devices ...
GROW_EVERY_S = 60.0  # ... add in this time: a forger does not use them up at once
STEP_S = 0.05  # after a larger step of the clock devices must get the time again
MAX_DEVICES = 1024  # that are known to use this time


class TimeServer:
    """Site time is this node's wall clock. Where that was set back, a new epoch begins.

    A restart continues from the time that was written last. Where the clock is behind that by no
    more than a small step back, requests wait until it has passed what may have been sent before.
    """

    def __init__(self, site: str, kept: SiteTime | None = None) -> None:
        self.site = site
        self.epoch, self._latest_s = kept or SiteTime(0, -math.inf)
        self._informed_until_s = self._latest_s + KEEP_EVERY_S  # by an earlier process, at most
        self._keep_at_s = -math.inf  # monotonic
        self._grow_at_s = -math.inf
        self._offset_s: float | None = None  # of the wall clock and the monotonic one
        self._informed: set[str] = set()  # devices that got the time since its last step
        self._users: set[str] = set()  # of them, those that use it
        self.counts = {"clock_set_back": 0, "clock_set_ahead": 0}

    @property
    def gauges(self) -> dict[str, float]:
        return {"site_epoch": float(self.epoch)}

    def is_used_by(self, device: str, epoch: int) -> bool:
        """Whether the stamps of a device's messages of this epoch are in this node's time."""
        return epoch == self.epoch and device in self._users

    def subscriptions(self) -> list[str]:
        return [topic_filter(Kind.TIME_REQUEST, self.site)]

    def deadline_s(self) -> float | None:
        return self._keep_at_s if math.isfinite(self._keep_at_s) else None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects = self._follow_clock(now)
        match event:
            case Received(Topic(_, Kind.TIME_REQUEST, node), TimeRequest() as request):
                effects += self._grow(request.epoch, now)
                self._note_user(node, request)
                if now.wall_s >= self._informed_until_s:
                    self._informed.add(node)
                    reply = TimeReply(request.asked_at_s, now.wall_s, self.epoch)
                    effects.append(Publish(Topic(self.site, Kind.TIME_REPLY, node), reply))
        if now.monotonic_s >= self._keep_at_s:
            self._keep_at_s = now.monotonic_s + KEEP_EVERY_S
            effects.append(KeepTime(SiteTime(self.epoch, max(self._latest_s, 0.0))))
        return effects

    def _follow_clock(self, now: Now) -> list[Effect]:
        """Begin an epoch where the clock was set back."""
        before_s, self._offset_s = self._offset_s, now.wall_s - now.monotonic_s
        if before_s is not None and abs(self._offset_s - before_s) > STEP_S:
            self._forget_users()
        if now.wall_s < self._latest_s - SET_BACK_S:
            back_s = self._latest_s - now.wall_s
            self.counts["clock_set_back"] += 1
            return self._begin(
                self.epoch + 1, now, "the clock is %.1f s behind the time before", back_s
            )
        self._latest_s = max(self._latest_s, now.wall_s)
        ahead_s = 0.0 if before_s is None else self._offset_s - before_s
        if ahead_s <= AHEAD_S:
            return []
        self.counts["clock_set_ahead"] += 1
        return [Log("warning", "the clock was set %.1f s ahead", (ahead_s,))]

    def _note_user(self, node: str, request: TimeRequest) -> None:
        if len(self._informed) > MAX_DEVICES:
            self._forget_users()
        if request.known and request.epoch == self.epoch and node in self._informed:
            self._users.add(node)
        else:
            self._users.discard(node)

    def _forget_users(self) -> None:
        self._informed.clear()
        self._users.clear()

    def _grow(self, proposed: int, now: Now) -> list[Effect]:
        """Begin the epoch that a device wants, which knows later times of this one."""
        if proposed <= self.epoch or now.monotonic_s < self._grow_at_s:
            return []
        self._grow_at_s = now.monotonic_s + GROW_EVERY_S
        epoch = min(proposed, self.epoch + GROWTH)
        return self._begin(epoch, now, "a device knows a later time than %.1f", now.wall_s)

    def _begin(self, epoch: int, now: Now, reason: str, seconds: float) -> list[Effect]:
        self.epoch = min(epoch, MAX_EPOCH)
        self._latest_s, self._informed_until_s = now.wall_s, -math.inf
        self._keep_at_s = -math.inf  # at once
        self._forget_users()
        text = f"{reason}: samples are numbered in epoch %d from now on"
        return [Log("warning", text, (seconds, self.epoch))]
