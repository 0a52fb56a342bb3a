"""Runs the collector's machine against a broker, in the thread of the command."""

from __future__ import annotations

import time

from ddnn.cli.machine_driver import MachineDriver
from ddnn.cli.observer import UNNAMED_NODE, ObserverSettings
from ddnn.machines.clock import OnSiteTime, SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.picture_collector import PictureCollector
from ddnn.machines.time_server import TimeServer
from ddnn.protocol.machine import Forgotten, Now, Received
from ddnn.protocol.messages import Status


class CollectorDriver(MachineDriver):
    """A connection, the collector's machine, and its clock.

    Where no edge serves the site's time, this process does, once `serve_time` was called.
    """

    def __init__(self, settings: ObserverSettings, collector: PictureCollector) -> None:
        self.edges: dict[str, Status] = {}
        node = settings.node
        if node == UNNAMED_NODE:  # of several collectors, too, each gets its own replies
            node = f"collector-{collector.session[-4:]}"
        self._clock = SiteClock(settings.site, node, None, time.monotonic())
        on_time = OnSiteTime(collector, self._clock)
        super().__init__(settings, CompositeMachine(on_time, self._clock))

    @property
    def has_edge(self) -> bool:
        """Whether an edge of the site is online, which serves its time."""
        return any(status.state == "online" for status in self.edges.values())

    def serve_time(self) -> None:
        """Serve the site's time: this machine's wall clock."""
        self.add(TimeServer(self._settings.site))

    def read_time(self) -> Now:
        """The time as the collector's machine sees it."""
        now = Now(time.monotonic(), time.time())
        return Now(now.monotonic_s, self._clock.time_s(now))

    def _note(self, received: Received | Forgotten) -> None:
        status = received.message if isinstance(received, Received) else None
        if isinstance(status, Status) and status.role == "edge":
            self.edges[received.topic.node] = status
