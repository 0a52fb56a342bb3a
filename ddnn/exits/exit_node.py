"""The lead edge's machine: reads the scores that arrive, decides at the exits, answers.

    state      waits for                    then
    LOCAL      scores of the devices        sure: answer; else ask the devices for features
    EDGE       scores of the edges          sure: answer; else ask the edges for features
    CLOUD      the cloud's scores           answer
A sample whose scores do not arrive is answered by its deadline, from the deepest exit that has
scores. `sample` holds the states of a sample and their transitions, `decisions` the decisions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.core.clock_offset import ClockOffset
from ddnn.core.pace import Pace, PaceHistory
from ddnn.core.site_time import find_epoch, find_tick
from ddnn.exits.decisions import Decisions, Report
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.manifest import Manifest
from ddnn.exits.presence import HierarchyPresence
from ddnn.exits.receipts import Receipts
from ddnn.exits.sample import State
from ddnn.exits.thresholds import ThresholdsInUse
from ddnn.exits.timing import Timing
from ddnn.machines.admission import Admission
from ddnn.machines.outbox import Outbox
from ddnn.machines.pace import PaceControl
from ddnn.machines.time_server import TimeServer
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
    find_earliest,
)
from ddnn.protocol.messages import (
    Features,
    PaceCommand,
    Scores,
    Status,
    Thresholds,
)
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

MAX_SCORE = 1e9  # a sum of greater scores may overflow to infinity
LEAST_TICK_HZ = 1e-3  # a slower device is not of this scheme of sample numbers


class ExitNode:
    """Decides at every exit and answers. Sans-IO; see ddnn.protocol.machine."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        outbox: Outbox,
        pace: PaceControl,
        time_server: TimeServer | None = None,
        audit_share: float = 0.0,
    ) -> None:
        """pace: the node's. time_server: knows the devices whose stamps are in its time."""
        hierarchy = manifest.hierarchy
        self.site, self.node, self.bundle = site, node, bundle
        self._manifest, self._hierarchy, self._timing = manifest, hierarchy, timing
        self._edges = tuple(group.id for group in hierarchy.edges)
        self._thresholds = ThresholdsInUse(bundle, manifest, audit_share)
        self._presence = HierarchyPresence(node, hierarchy)
        self._pace = pace
        self._receipts = Receipts(site, node)
        self._decisions = Decisions(
            site,
            node,
            bundle,
            self._thresholds,
            timing,
            self._presence,
            outbox,
            self._receipts,
            self._pace,
        )
        self._masks = {device: hierarchy.make_mask([device]) for device in hierarchy.devices}
        self._offsets = {device: ClockOffset() for device in hierarchy.devices}
        self._admission = Admission(hierarchy.devices)
        self._time_server = time_server
        self._own_counts: dict[str, int] = {}

    @property
    def counts(self) -> dict[str, int]:
        return {**self._decisions.counts, **self._own_counts, **self._pace.counts}

    @property
    def gauges(self) -> dict[str, float]:
        """The thresholds and the audit in use, whether a cloud is live, and the site's pace."""
        cloud_up = float(self._presence.cloud_is_live)
        own = {"cloud_up": cloud_up, **self._decisions.gauges, **self._pace.gauges}
        return {**self._thresholds.gauges, **own}

    def subscriptions(self) -> list[str]:
        kind = Kind.SCORES if self._hierarchy.local_exit else Kind.FEATURES
        others = [edge for edge in self._edges if edge != self.node]
        return [
            *(topic_filter(kind, self.site, device) for device in self._hierarchy.devices),
            *(topic_filter(Kind.SCORES, self.site, edge) for edge in others),
            topic_filter(Kind.VERDICT, self.site, self.node),
            topic_filter(Kind.THRESHOLDS, self.site, self.node),
            *presence_filters(self.site),
        ]

    def deadline_s(self) -> float | None:
        times = (self._decisions.deadline_s(), self._receipts.deadline_s())
        return find_earliest(times)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.SCORES, node), Scores() as message):
                if node in self._offsets:
                    effects = self._take_device(node, message, event.wire_bytes, now)
                elif node in self._edges:
                    effects = self._take_edge(node, message, now)
                else:
                    self._count("scores_refused")
            case Received(Topic(_, Kind.FEATURES, node), Features() as message):
                if not self._hierarchy.local_exit and node in self._offsets:
                    self._admit(node, message, now)  # opens the sample, which has a deadline
            case Received(Topic(_, Kind.VERDICT, self.node), Scores() as message):
                effects = self._take_verdict(message, now)
            case Received(Topic(site, Kind.STATUS, node), Status() as status):
                if self._presence.take_status(site, node, status):
                    effects = self._decisions.review(now)
            case Received(Topic(_, Kind.THRESHOLDS, self.node), Thresholds() as command):
                if not self._thresholds.take(command):
                    self._count("thresholds_refused")
            case Connected():
                if self._pace.history != PaceHistory():
                    effects = [self._command(self._pace.history.newest)]
            case Disconnected():
                self._presence.disconnect()
        effects += self._decisions.end_due(now)
        effects += self._receipts.end_due(now)
        pace = self._pace.decide(now.monotonic_s)
        return effects if pace is None else [self._command(pace), *effects]

    def _command(self, pace: Pace) -> Publish:
        return Publish(Topic(self.site, Kind.PACE, self.node), PaceCommand(*pace))

    # ----------------------------------------------------------------- devices

    def _take_device(self, device: str, message: Scores, wire_bytes: int, now: Now) -> list[Effect]:
        score_format, own = self._manifest.score_format, self._masks[device]
        scores = self._read(message, score_format.type)
        if scores is None or message.members != own:
            self._count("scores_refused")
            return []
        if not self._admit(device, message, now):
            # What is shed was sent before the device knew.
            is_late = self._pace.is_admitted(message.sample)
            self._count("scores_late" if is_late else "scores_shed")
            return []
        traffic = (len(message.scores.data), wire_bytes)
        report = Report(score_format.decode(scores), own, message.label, traffic)
        return self._take(State.LOCAL, device, message, report, "scores_late", now)

    def _admit(self, device: str, message: Scores | Features, now: Now) -> bool:
        """Open the sample of a device's message if it is new.

        False where the sample is too old, shed, of another bundle, or none that can be now.
        """
        if message.bundle != self.bundle:
            self._count("wrong_bundle")
            return False
        age_s = self._find_age_s(device, message, now)
        if not self._pace.is_admitted(message.sample):
            return False
        opened_s = self._decisions.opened_s(message.sample)
        if opened_s is not None:
            if now.monotonic_s <= opened_s + self._timing.window_s:
                self._presence.note_report(device)
            self._admission.note(device, message.sample, message.captured_at_s, now.monotonic_s)
            return True
        if age_s > self._timing.edge_s:
            self._count("expired")  # the message was delayed: its device has answered already
            return False
        if not self._admission.admit(
            device, message.sample, message.captured_at_s, now.monotonic_s
        ):
            self._count("samples_refused")
            return False
        self._presence.note_report(device)
        captured_s = now.monotonic_s - age_s
        # One that is early must not answer before the others can report.
        ahead_s = self._admission.find_ahead_s(device, message.sample, now.monotonic_s)
        self._decisions.open(message.sample, message.captured_at_s, captured_s, now, ahead_s)
        return True

    def _find_age_s(self, device: str, message: Scores | Features, now: Now) -> float:
        """The time since the capture.

        By the stamp where the device uses this node's time, and only then the pace takes note of
        it; else by the least delay of late, which counts as none.
        """
        sample, captured_at_s = message.sample, message.captured_at_s
        age_s = self._offsets[device].age_s(captured_at_s, now.monotonic_s)
        server = self._time_server
        if server is None or not server.is_used_by(device, find_epoch(sample)):
            return age_s
        age_s = max(0.0, now.wall_s - captured_at_s)
        tick_hz = find_tick(sample) / max(captured_at_s, 1.0)
        if tick_hz >= LEAST_TICK_HZ:
            self._pace.note_report(device, sample, tick_hz, age_s, now.monotonic_s)
        return age_s

    # ------------------------------------------------------------- upper tiers

    def _take_edge(self, edge: str, message: Scores, now: Now) -> list[Effect]:
        if message.bundle != self.bundle:
            self._count("wrong_bundle")
            return []
        scores = self._read(message, "float32")
        if scores is None:
            self._count("scores_refused")
            return []
        self._trust_if_in_time(edge, message.sample, now)
        own = self._hierarchy.make_mask(self._hierarchy.find_group(edge).devices)
        mask = message.members & own
        self._note_delay(edge, message.sample, mask, own, now)
        report = Report(scores, mask, message.label, message.traffic, message.shortfall)
        return self._take(State.EDGE, edge, message, report, "scores_late", now)

    def _take_verdict(self, message: Scores, now: Now) -> list[Effect]:
        scores = self._read(message, "float32")
        if message.bundle != self.bundle or scores is None:
            self._count("verdict_refused")
            return []
        self._trust_if_in_time(CLOUD, message.sample, now)
        mask = message.members & self._hierarchy.everyone
        # Edges with a section report the traffic below them with their scores.
        traffic = (0, 0) if self._hierarchy.edge_section else message.traffic
        report = Report(scores, mask, message.label, traffic, message.shortfall)
        return self._take(State.CLOUD, CLOUD, message, report, "verdict_late", now)

    def _trust_if_in_time(self, node: str, sample: int, now: Now) -> None:
        """Note that an upper tier reported, if it did so before the answer was due."""
        opened_s = self._decisions.opened_s(sample)
        if opened_s is not None and now.monotonic_s <= opened_s + self._timing.edge_s:
            self._presence.note_report(node)

    def _note_delay(self, edge: str, sample: int, mask: int, own: int, now: Now) -> None:
        """Note how long an edge's section took, unless the edge waited for a device in vain: that
        is no queue."""
        asked_s = self._decisions.asked_s(sample, State.EDGE)
        live = self._hierarchy.make_mask(self._presence.live) & own
        if asked_s is not None and live & ~mask == 0:
            self._pace.note_delay(edge, now.monotonic_s - asked_s, now.monotonic_s)

    # ---------------------------------------------------------------- messages

    def _read(self, message: Scores, wire_type: str) -> NDArray[Any] | None:
        """The scores [classes] as they were sent; None where shape, type or a value is invalid."""
        if message.scores.shape != (len(self._manifest.classes),):
            return None
        scores = message.scores.array()
        within = np.abs(scores.astype(np.float32)) <= MAX_SCORE  # NaN is not
        return scores if message.scores.type == wire_type and within.all() else None

    def _take(
        self, state: State, node: str, message: Scores, report: Report, late: str, now: Now
    ) -> list[Effect]:
        """Add a report to its sample; `late` is the counter of reports that no sample awaits."""
        taken, effects = self._decisions.take(message.sample, state, node, report, now)
        if not taken:
            self._count(late)
        return effects

    def _count(self, name: str) -> None:
        self._own_counts[name] = self._own_counts.get(name, 0) + 1
