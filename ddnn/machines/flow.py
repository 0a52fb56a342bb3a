"""How much may be on its way over a link whose rate is not known: a window in bytes.

Confirmations clock what is sent, as in TCP. The window follows the measured rate of delivery (as
BBR does), not losses: what waits in the buffers of sockets and brokers is not lost, it is late.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

QUEUE_S = 1.0  # how long what is sent may wait on the link behind what was sent before
WINDOW_BYTES = (4096, 256 << 10)
RATE_KEEP_S = 10.0  # the greatest rate of so long counts: one measurement may be far too low
TIMEOUT_S = 2.0  # of a link whose latency is not known; a store that is there needs much less
LATENCIES = 3.0  # and of one whose latency is known, so many times that
TIMEOUT_AT_MOST_S = 30.0  # a latency may hold the time in which a link was away
DOUBLINGS = 2  # of the timeout, while nothing at all is confirmed


class Sent(NamedTuple):
    """Something that was sent, and what was delivered until then."""

    size_bytes: int
    at_s: float
    first_s: float  # when it was sent for the first time
    delivered_bytes: int
    delivered_at_s: float


class Flow:
    """The window of one sender. Times are monotonic."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the link: the next connection may be another."""
        self.in_flight_bytes = 0
        self.newest_confirmed_s = -1.0  # when the newest of what was confirmed was sent
        self._delivered_bytes = 0
        self._delivered_at_s: float | None = None
        self._latency_s = 0.0  # smoothed
        self._least_latency_s: float | None = None
        self._rates: deque[tuple[float, float]] = deque()  # (when, bytes/s), rates decreasing
        self._doublings = 0

    @property
    def window_bytes(self) -> int:
        """How much may be on its way."""
        rate = self._rates[0][1] if self._rates else 0.0
        latency_s = self._latency_s if self._least_latency_s is None else self._least_latency_s
        # As much again as the latency: on a long link the window doubles while nothing queues.
        wanted = round(rate * (latency_s + max(QUEUE_S, latency_s)))
        return min(max(wanted, WINDOW_BYTES[0]), WINDOW_BYTES[1])

    @property
    def timeout_s(self) -> float:
        """How long after the last confirmation what is on its way is taken to be lost."""
        timeout_s = max(TIMEOUT_S, LATENCIES * self._latency_s) * (1 << self._doublings)
        return min(timeout_s, TIMEOUT_AT_MOST_S)

    @property
    def room_bytes(self) -> int:
        return self.window_bytes - self.in_flight_bytes

    def send(self, size_bytes: int, now_s: float, before: Sent | None = None) -> Sent:
        """Note that something is sent; the result is for `confirm` or `lose`.

        before: the result of the last time, where it was sent before
        """
        if self._delivered_at_s is None or not self.in_flight_bytes:
            self._delivered_at_s = now_s  # an idle link delivers nothing: that is no low rate
        self.in_flight_bytes += size_bytes
        first_s = before.first_s if before else now_s
        return Sent(size_bytes, now_s, first_s, self._delivered_bytes, self._delivered_at_s)

    def confirm(self, sent: Sent, now_s: float, *, was_lost: bool = False) -> None:
        """Note a confirmation. was_lost: `lose` was called for it."""
        if not was_lost:
            self.in_flight_bytes -= sent.size_bytes
        self._doublings = 0
        self.newest_confirmed_s = max(self.newest_confirmed_s, sent.at_s)
        self._delivered_bytes += sent.size_bytes
        self._delivered_at_s = now_s
        # It is not known which of several is confirmed: the first gives the greatest latency.
        latency_s = max(now_s - sent.first_s, 1e-3)
        self._latency_s += (latency_s - self._latency_s) / (8 if self._latency_s else 1)
        if sent.first_s == sent.at_s:
            least_s = self._least_latency_s
            self._least_latency_s = latency_s if least_s is None else min(latency_s, least_s)
        # What is confirmed at once was delivered in the time since the confirmation before it.
        took_s = max(now_s - sent.delivered_at_s, 1e-3)
        self._add_rate((self._delivered_bytes - sent.delivered_bytes) / took_s, now_s)

    def lose(self, sent: Sent) -> None:
        """Note that something is not waited for any more."""
        self.in_flight_bytes -= sent.size_bytes

    def stall(self) -> None:
        """Nothing was confirmed within the timeout: begin with the least window again."""
        self._rates.clear()
        self._doublings = min(self._doublings + 1, DOUBLINGS)

    def _add_rate(self, rate: float, now_s: float) -> None:
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((now_s, rate))
        while self._rates[0][0] < now_s - RATE_KEEP_S:
            self._rates.popleft()
