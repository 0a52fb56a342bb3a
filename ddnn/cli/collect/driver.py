"""Runs the collector's machine against a broker, in the thread of the command."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ddnn.adapters.joined import open_guard
from ddnn.cli.observer import UNNAMED_NODE, ObserverSettings, start_observer
from ddnn.errors import LinkError, RemoteProtocolError
from ddnn.machines.clock import OnSiteTime, SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.picture_collector import PictureCollector
from ddnn.machines.time_server import TimeServer
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Now,
    Received,
    Tick,
)
from ddnn.protocol.messages import Status
from ddnn.runtime.effects import perform
from ddnn.runtime.host import NodeHost, Resources
from ddnn.runtime.packets import unpack
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

CONNECT_S = 6.0
MAX_TRIES = 2  # MQTT 5, then 3.1.1
STEP_S = 0.2


class CollectorDriver:
    """A connection, the collector's machine, and its clock.

    Where no edge serves the site's time, this process does, once `serve_time` was called.
    """

    def __init__(self, settings: ObserverSettings, collector: PictureCollector) -> None:
        self.collector, self._settings = collector, settings
        self.edges: dict[str, Status] = {}
        self.reason = ""  # why there is no connection
        self._tries = 0
        self._guard = open_guard(settings)
        node = settings.node
        if node == UNNAMED_NODE:  # of several collectors, too, each gets its own replies
            node = f"collector-{collector.session[-4:]}"
        self._clock = SiteClock(settings.site, node, None, time.monotonic())
        self._machine = CompositeMachine(OnSiteTime(collector, self._clock), self._clock)
        self._inbox: deque[Event] = deque()
        self._transport = start_observer(settings, self._take)
        self._host = NodeHost(self._transport, Resources(), self._deliver, self._guard)

    # ------------------------------------------------------------------- the user's

    def connect(self) -> None:
        """Wait for the connection; LinkError where the broker cannot be reached."""
        deadline_s = time.monotonic() + CONNECT_S
        while not self.collector.is_connected:
            if self._tries >= MAX_TRIES or time.monotonic() > deadline_s:
                raise LinkError(
                    f"{self.reason or f'{self._settings.broker} does not answer'}; "
                    "`ddnn doctor` with the same options names the remedy"
                )
            self.step()

    @property
    def has_edge(self) -> bool:
        """Whether an edge of the site is online, which serves its time."""
        return any(status.state == "online" for status in self.edges.values())

    def serve_time(self) -> None:
        """Serve the site's time: this machine's wall clock."""
        server = TimeServer(self._settings.site)
        self._machine = CompositeMachine(self._machine, server)
        self._transport.subscribe(server.subscriptions())

    def read_time(self) -> Now:
        """The time as the collector's machine sees it."""
        now = Now(time.monotonic(), time.time())
        return Now(now.monotonic_s, self._clock.time_s(now))

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            perform(effect, self._host)

    def run(self, is_over: Callable[[], bool], show: Callable[[], None], for_s: float) -> None:
        """Handle what comes until `is_over`, at most for so long; call `show` in between."""
        deadline_s = time.monotonic() + for_s
        while not is_over() and time.monotonic() < deadline_s:
            self.step()
            show()

    def step(self) -> None:
        """Handle what has come, and wait a little for more."""
        self._transport.wait(0.0 if self._inbox else self._find_wait_s())
        while self._inbox:
            self._handle(self._inbox.popleft())
        if self._find_wait_s() <= 0:
            self._handle(Tick())

    def close(self) -> None:
        self._transport.close()
        self._host.sections.close()

    # --------------------------------------------------------------------- events

    def _find_wait_s(self) -> float:
        due_s = self._machine.deadline_s()
        if due_s is None:
            return STEP_S
        return min(max(0.0, due_s - time.monotonic()), STEP_S)

    def _deliver(self, event: Any) -> None:
        """From any thread: what a call returned."""
        self._inbox.append(event)
        self._transport.wake()

    def _take(self, event: LinkEvent) -> None:
        match event:
            case LinkUp():
                self._transport.subscribe(self._machine.subscriptions())
                self._inbox.append(Connected())
            case LinkDown(reason):
                self.reason = reason
                self._tries += 1
                self._inbox.append(Disconnected())
            case Arrived(topic, payload):
                try:
                    received = unpack(topic, payload)
                except RemoteProtocolError:
                    return
                status = received.message if isinstance(received, Received) else None
                if isinstance(status, Status) and status.role == "edge":
                    self.edges[received.topic.node] = status
                self._inbox.append(received)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Received) and event.topic.site != self._settings.site:
            return
        self.perform(self._machine.handle(event, Now(time.monotonic(), time.time())))
