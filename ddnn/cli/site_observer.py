"""Collects what a site publishes at its broker: nodes, offers of workers, and answers."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddnn.cli.observer import ObserverSettings, limit_connecting, start_observer
from ddnn.errors import LinkError, RemoteProtocolError
from ddnn.exits.hierarchy import EXITS
from ddnn.machines.membership import Membership
from ddnn.protocol.codec import decode_arrived
from ddnn.protocol.messages import (
    Answer,
    Stats,
    Status,
    WorkerOffer,
)
from ddnn.protocol.offload_state import OffloadState, WorkerState
from ddnn.protocol.topics import (
    EVERYWHERE,
    AnyMessage,
    Kind,
    Topic,
    parse,
    presence_filters,
    topic_filter,
)
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

MIN_LISTEN_S = 2.0  # answers are counted for at least so long
SILENT_S = 20.0  # more than three statistics are missing
MAX_ANSWERS = 1000
MAX_NODES = 1000


@dataclass
class ObservedNode:
    """What is known of a node. Its presence follows the rule of the machines: a Last Will of an
    older session than the present one changes nothing."""

    status: Status
    membership: Membership
    heard_s: float | None = None  # monotonic; None: only its retained status is known
    stats: Stats | None = None

    @property
    def is_online(self) -> bool:
        return bool(self.membership.live)


@dataclass
class SiteObserver:
    """Collects what the nodes of a site publish, and publishes nothing itself."""

    settings: ObserverSettings
    nodes: dict[tuple[str, str], ObservedNode] = field(default_factory=dict)  # (site, node)
    offers: dict[tuple[str, str], WorkerOffer] = field(default_factory=dict)
    offloads: dict[tuple[str, str], OffloadState] = field(default_factory=dict)  # (site, group)
    answers: deque[tuple[float, Answer]] = field(
        default_factory=lambda: deque[tuple[float, Answer]](maxlen=MAX_ANSWERS)
    )
    silent_s: float = SILENT_S
    retained: set[str] = field(default_factory=set)  # of `collect_retained`
    is_connected: bool = False
    reason: str = ""  # why there is no connection
    link_changed_s: float = 0.0
    tries: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._retained_below: list[str] = []
        self._transport = start_observer(self.settings, self._handle)

    # ------------------------------------------------------------------ listening

    def connect(self) -> None:
        """Wait for the connection; LinkError where the broker cannot be reached."""
        tries, deadline_s = limit_connecting(self.settings)
        while not self.is_connected and self.tries < tries and time.monotonic() < deadline_s:
            self._transport.wait(0.2)
        if not self.is_connected:
            raise LinkError(
                f"{self.reason or f'{self.settings.broker} does not answer'}; "
                "`ddnn doctor` with the same options names the remedy"
            )

    def listen(self, for_s: float) -> None:
        """Collect for so many seconds; less once every online node has sent statistics."""
        end_s = self.started_s + for_s
        enough_s = min(end_s, self.started_s + MIN_LISTEN_S)
        while (now_s := time.monotonic()) < end_s:
            is_waiting = any(n.is_online and n.stats is None for n in self.nodes.values())
            if now_s >= enough_s and not is_waiting:
                return
            self._transport.wait(min(0.2, end_s - now_s))

    def listen_for(self, seconds: float) -> None:
        """Collect for so many seconds."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._transport.wait(min(0.2, left_s))

    def collect_retained(self, filters: Sequence[str]) -> None:
        """Collect in `retained` the topics of messages that the broker keeps."""
        self._retained_below = [text.removesuffix("#") for text in filters]
        self._transport.subscribe(filters)

    def clear(self, topic: str) -> None:
        """Remove the message that the broker keeps of a topic."""
        self._transport.publish(topic, b"", 1, True)

    def wait(self, timeout_s: float) -> None:
        self._transport.wait(timeout_s)

    def close(self) -> None:
        self._transport.close()

    def _handle(self, event: LinkEvent) -> None:
        match event:
            case LinkUp():
                site = self.settings.site
                heard = "+" if site == EVERYWHERE else site
                stats = [topic_filter(Kind.STATS, s) for s in {heard, EVERYWHERE}]
                self._transport.subscribe(
                    [*presence_filters(heard), *stats]
                    + [
                        topic_filter(kind, heard)
                        for kind in (Kind.ANSWER, Kind.OFFER, Kind.OFFLOAD)
                    ]
                )
                self.nodes.clear()  # the retained statuses arrive again
                self.offers.clear()
                self.offloads.clear()
                self.is_connected, self.link_changed_s = True, time.monotonic()
            case LinkDown(reason):
                if self.is_connected:
                    self.link_changed_s = time.monotonic()
                self.is_connected, self.reason = False, reason
                self.tries += 1
            case Arrived(text, payload):
                if any(text.startswith(begin) for begin in self._retained_below):
                    (self.retained.add if payload else self.retained.discard)(text)
                if not payload:
                    self._forget(text)
                    return
                try:
                    topic, message = decode_arrived(text, payload)
                except RemoteProtocolError:
                    return
                self._collect(topic, message, time.monotonic())

    def _forget(self, text: str) -> None:
        """Drop the node whose retained status was removed."""
        try:
            topic = parse(text)
        except RemoteProtocolError:
            return
        if topic.kind is Kind.STATUS:
            self.nodes.pop((topic.site, topic.node), None)

    def _collect(self, topic: Topic, message: AnyMessage, now_s: float) -> None:
        key = topic.site, topic.node
        match message:
            case Status() if len(self.nodes) < MAX_NODES:
                node = self.nodes.setdefault(key, ObservedNode(message, Membership([topic.node])))
                was_online = node.is_online
                node.membership.take_status(topic.node, message)
                if message.state == "online" or (was_online and not node.is_online):
                    node.status = message
            case Stats() if key in self.nodes:
                self.nodes[key].stats, self.nodes[key].heard_s = message, now_s
            case WorkerOffer() if len(self.offers) < MAX_NODES:
                self.offers[key] = message  # may arrive before the node's status
            case OffloadState() if len(self.offloads) < MAX_NODES:
                self.offloads[key] = message
            case Answer():
                self.answers.append((now_s, message))
                sender = self.nodes.get((topic.site, message.node))
                if sender is not None:
                    sender.heard_s = now_s

    # ------------------------------------------------------------------ reporting

    def judge_presence(self, node: ObservedNode) -> str:
        """online, silent, or the state that was announced; unknown while the broker is away."""
        if not self.is_connected:
            return "unknown"
        if not node.is_online:
            return node.status.state
        since_s = node.heard_s if node.heard_s is not None else self.link_changed_s
        return "silent" if time.monotonic() - since_s > self.silent_s else "online"

    def find_offers(self) -> dict[str, WorkerOffer]:
        """The offers of the site's online nodes that lend computing power, by node."""
        return {
            node: offer
            for (site, node), offer in self.offers.items()
            if (site, node) in self.nodes and self.nodes[site, node].is_online
            if offer.profile is not None
        }

    def find_worker(self, node: str) -> WorkerState | None:
        """How a worker of the site does, as the owner of its plan sees it who has observed it for
        longest; None where no owner reports it."""
        states = [
            state.workers[node]
            for (site, _), state in self.offloads.items()
            if site == self.settings.site and node in state.workers
        ]
        return max(states, key=lambda state: state.observed_s, default=None)

    def find_bundle(self, node: str) -> str:
        """The id of the bundle that a node of the site announced."""
        return self.nodes[self.settings.site, node].status.bundle

    def make_report(self) -> dict[str, Any]:
        """Everything observed so far, as `ddnn status --json` prints it."""
        now_s = time.monotonic()
        return {
            "site": self.settings.site,
            "broker": self.settings.broker,
            "connected": self.is_connected,
            "listened_s": round(now_s - self.started_s, 1),
            "nodes": [
                {
                    "site": site,
                    "node": name,
                    "presence": self.judge_presence(node),
                    **describe_node(node, now_s),
                }
                for (site, name), node in sorted(self.nodes.items())
            ],
            "thinned": self.list_thinned(),
            "exits": count_exits([answer for _, answer in self.answers]),
            "last_answer_age_s": round(now_s - self.answers[-1][0], 1) if self.answers else None,
        }

    def list_thinned(self) -> list[dict[str, Any]]:
        """The lead edges whose sites do not take all ticks, or have not."""
        return [
            {
                "site": site,
                "node": name,
                "share_taken": stats.gauges.get("share_taken", 1.0),
                "samples_shed": stats.counts["samples_shed"],
            }
            for (site, name), node in sorted(self.nodes.items())
            if (stats := node.stats) is not None and stats.counts.get("samples_shed")
        ]

    def summarize(self) -> str:
        """One line: how many nodes are online, or why that is unknown."""
        site = f"site {self.settings.site} at {self.settings.broker}"
        if not self.is_connected:
            away_s = time.monotonic() - self.link_changed_s
            return f"{site}: the broker is away for {away_s:.0f} s: {self.reason}"
        if not self.nodes:
            return f"{site}: no node was announced; start a node, or correct --site"
        online = sum(self.judge_presence(node) == "online" for node in self.nodes.values())
        return f"{site}: {online} of {len(self.nodes)} nodes online"


@contextmanager
def observe_site(settings: ObserverSettings) -> Iterator[SiteObserver]:
    """Observe a site; LinkError where its broker cannot be reached."""
    observer = SiteObserver(settings)
    try:
        observer.connect()
        yield observer
    finally:
        observer.close()


def describe_node(node: ObservedNode, now_s: float) -> dict[str, Any]:
    """What the node announced and its latest statistics."""
    stats = node.stats
    return {
        "role": node.status.role,
        "version": node.status.version,
        "bundle": node.status.bundle,
        "heard_age_s": None if node.heard_s is None else round(now_s - node.heard_s, 1),
        "uptime_s": None if stats is None else round(stats.uptime_s, 1),
        "memory_bytes": None if stats is None else stats.memory_bytes,
        "counts": {} if stats is None else stats.counts,
        "gauges": {} if stats is None else stats.gauges,
    }


def count_exits(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Answers, share and p50 latency of each exit that answered, from shallow to deep."""
    counts = Counter(answer.exit for answer in answers)
    return {
        tier: {
            "answers": counts[tier],
            "share": round(counts[tier] / len(answers), 4),
            "latency_p50_s": round(
                float(np.median([a.latency_s for a in answers if a.exit == tier])), 4
            ),
            "degraded": sum(a.exit == tier and a.quality == "degraded" for a in answers),
        }
        for tier in EXITS
        if counts[tier]
    }
