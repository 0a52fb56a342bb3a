"""Connections that do not finish their requests do not keep others out."""

from __future__ import annotations

import time
from typing import Any

from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]

REQUEST_S = 10.0  # from a connection's first byte, or from its opening, to a whole request
IDLE_S = 75.0  # between two requests of a connection: longer than the connections of proxies
SHARE = 0.5  # of the connections that may wait for a request; beyond it the oldest are closed


class TimedChannel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows since when it has owed a request. Times are monotonic.

    A thread of the server answers requests; all else happens in the thread that closes connections.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.since_s = time.monotonic()  # it was opened, or the last request was answered
        self._begun_s = self.since_s  # the first byte of the request that is arriving
        self._has_asked = False
        super().__init__(*arguments, **named)

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self._begun_s = time.monotonic()
        return bool(super().received(data))

    def service(self) -> None:
        self._has_asked, self.since_s = True, time.monotonic()
        super().service()
        self.since_s = time.monotonic()

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a request: none is answered, and all answers are sent."""
        return not (self.requests or self.total_outbufs_len or self.will_close)

    def is_overdue(self, now_s: float) -> bool:
        """Whether its request takes too long to arrive."""
        if not self._has_asked:
            return now_s - self.since_s > REQUEST_S
        if self.request is not None:
            return now_s - self._begun_s > REQUEST_S
        return now_s - self.since_s > IDLE_S


class TimelyServer(TcpWSGIServer):  # type: ignore[misc]
    """Closes connections whose requests are overdue, and the oldest where too many wait."""

    channel_class = TimedChannel

    def readable(self) -> bool:
        self.close_waiting(time.monotonic())
        return bool(super().readable())

    def maintenance(self, now: float) -> None:
        """Do nothing: `close_waiting` does it, by a clock that nobody sets."""

    def close_waiting(self, now_s: float) -> None:
        """Close connections that are overdue, and those beyond the share that may wait."""
        waiting = sorted(
            (channel for channel in self.active_channels.values() if channel.is_waiting),
            key=lambda channel: float(channel.since_s),
        )
        surplus = len(waiting) - int(SHARE * self.adj.connection_limit)
        for number, channel in enumerate(waiting):
            if number < surplus or channel.is_overdue(now_s):
                # Closed at its turn: a file descriptor that is closed here may be that of a new
                # connection before this round of events is over.
                channel.will_close = True
