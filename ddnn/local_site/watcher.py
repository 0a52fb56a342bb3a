"""Listens to everything that a site publishes."""

from __future__ import annotations

import threading
import time

from ddnn.adapters.driven_transport import DrivenTransport
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.pace import Pace, PaceHistory
from ddnn.errors import DdnnError, RemoteProtocolError
from ddnn.exits.answers import choose_better
from ddnn.protocol.codec import decode_arrived, encode
from ddnn.protocol.messages import (
    Answer,
    Backlog,
    PaceCommand,
    Stats,
    Status,
    Thresholds,
)
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.topics import Kind, Topic, topic_filter
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.site_identity import Broker
from ddnn.runtime.transport import Arrived, LinkEvent, LinkUp

SITE = "demo"
HEARD = (Kind.ANSWER, Kind.BACKLOG, Kind.STATUS, Kind.STATS, Kind.OFFLOAD, Kind.PACE)
MAX_PACES = 100_000  # that are remembered
POLL_S = 0.02


class Watcher:
    """Keeps the best answer per sample, as the store does, and the newest state of the nodes."""

    def __init__(
        self, port: int, version: str, lead: str = "", thresholds: Thresholds | None = None
    ) -> None:
        """thresholds: command that the edge `lead` receives, retained."""
        self._lead, self._thresholds = lead, thresholds
        self.lock = threading.Lock()
        self.answers: dict[int, Answer] = {}
        self.first_s: dict[int, float] = {}  # when any answer to a sample was first given
        self.online: set[str] = set()
        self.stats: dict[str, Stats] = {}
        self.offload: OffloadState | None = None
        self.pace = PaceHistory()  # of the whole run
        transport = MqttTransport("demo-watcher", [Broker("127.0.0.1", port)], version)
        self._transport = DrivenTransport(transport)

    def start(self) -> None:
        self._transport.start(self._sink, lambda session: (f"ddnn/demo-watcher/{SITE}", b""))

    def _sink(self, event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            self._transport.subscribe([topic_filter(kind, SITE) for kind in HEARD])
            if self._thresholds is not None:
                to_lead = str(Topic(SITE, Kind.THRESHOLDS, self._lead))
                self._transport.publish(to_lead, encode(self._thresholds), 1, True)
        elif isinstance(event, Arrived):
            try:
                topic, message = decode_arrived(event.topic, event.payload)
            except RemoteProtocolError:
                return
            with self.lock:
                self._take(topic.node, message)

    def _take(self, node: str, message: object) -> None:
        match message:
            case Answer():
                self.add(message)
            case Backlog(answers):
                for answer in answers:
                    self.add(answer)
            case Status(state=state):
                (self.online.add if state == "online" else self.online.discard)(node)
            case Stats():
                self.stats[node] = message
            case PaceCommand(share, since):
                self.pace = self.pace.add(Pace(share, since), MAX_PACES)
            case OffloadState():
                self.offload = message

    def add(self, answer: Answer, first_s: float | None = None) -> None:
        """Keep the better of this answer and the one that is known.

        first_s: when any answer to this sample was first given, where that is known
        """
        old = self.answers.get(answer.sample)
        self.answers[answer.sample] = answer if old is None else choose_better(old, answer)
        given_s = answer.answered_at_s if first_s is None else first_s
        self.first_s[answer.sample] = min(given_s, self.first_s.get(answer.sample, given_s))

    def wait_for(self, fleet: Fleet, nodes: list[str], timeout_s: float) -> None:
        """Wait until all nodes are online; DdnnError names one that is not, with its last words."""
        until_s = time.monotonic() + timeout_s
        while missing := [node for node in nodes if node not in self.online]:
            for node in missing:
                fleet.require_alive(node)
            if time.monotonic() > until_s:
                raise DdnnError(f"{missing[0]} is not up: {fleet.read_last_line(missing[0])}")
            time.sleep(POLL_S)

    def wait_for_pieces(self, timeout_s: float) -> None:
        """Wait until every worker has loaded its pieces of the plan."""
        until_s = time.monotonic() + timeout_s
        while self.offload is None or self.offload.live_pieces < self.offload.pieces:
            if time.monotonic() > until_s:
                workers = self.offload.workers if self.offload else {}
                states = ", ".join(f"{name} {worker.state}" for name, worker in workers.items())
                raise DdnnError(f"not all pieces are loaded: {states or 'the edge is silent'}")
            time.sleep(POLL_S)

    def takes_part(self, node: str) -> bool:
        """Whether the node is online and, if it is a worker, the edge sends it tasks."""
        with self.lock:
            workers = {} if self.offload is None else self.offload.workers
            is_live = node not in workers or workers[node].state == "live"
            return node in self.online and is_live

    def close(self) -> None:
        self._transport.close()
