"""One run of the soak over a started site."""

from __future__ import annotations

import contextlib
import http.client
import math
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import psutil

from benchmarks.harness.listener import Listener
from benchmarks.harness.report import progress_bar
from benchmarks.harness.sites import running_site
from benchmarks.soak.faults import DOWN_S, EPOCHS, Fault, draw_faults, draw_spared
from benchmarks.soak.growth import MIN_LIFE_S, Life, judge_growth
from benchmarks.soak.samples import find_owed, judge_samples
from benchmarks.soak.troubles import Troubles
from ddnn.exits.manifest import Manifest
from ddnn.local_site.broker_process import BROKER
from ddnn.local_site.site import Site, SiteConfig, StoredAnswer
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Stats
from ddnn.protocol.topics import Kind, parse, topic_filter

START_S = 5.0  # until a started device surely captures while others start
RESUME_S = 0.5  # the same for a continued one
SETTLE_S = 90.0  # at the end: until all that was kept on disks is delivered
CHECK_S = 10.0  # how often the store is read during the run
MISSED_S = 60.0  # a sample that is not stored this long after its deadline is missed
SILENCE_S = 15.0  # after it, a machine's report of its queue is out of date
BROKER_QUEUE = "$SYS/broker/store/messages/count"  # published only when it has changed


class QueueListener:
    """How many messages wait: for each machine by its Stats, in Mosquitto by its own count, which
    includes retained messages."""

    def __init__(self, port: int) -> None:
        self._reports: dict[str, tuple[float, float]] = {}  # by node: when (monotonic), messages
        filters = [BROKER_QUEUE, topic_filter(Kind.STATS, SITE)]
        self._listener = Listener("soak", port, filters, self._on_message).start()

    def _on_message(self, topic: str, payload: bytes) -> None:
        now_s = time.monotonic()
        if topic == BROKER_QUEUE:
            self._reports[BROKER] = now_s, float(payload)
            return
        stats = decode(Kind.STATS, payload)
        if isinstance(stats, Stats):
            self._reports[parse(topic).node] = now_s, stats.gauges["queue"]

    def read(self, node: str, since_s: float) -> float | None:
        """The last report of a node; None: there is none since then, or, of a machine, for
        SILENCE_S."""
        at_s, queue = self._reports.get(node, (-math.inf, math.nan))
        if node != BROKER:
            since_s = max(since_s, time.monotonic() - SILENCE_S)
        return queue if at_s > since_s else None

    def close(self) -> None:
        self._listener.close()


class Soak:
    """Strikes the nodes of a site, brings them back, and records their lives."""

    def __init__(
        self, site: Site, seconds: float, seed: int, gap_s: float, troubles: Troubles | None = None
    ) -> None:
        self.site, self.seconds, self.troubles = site, seconds, troubles
        self.devices = list(site.config.manifest.hierarchy.devices)
        self.nodes = list(site.fleet.nodes)
        random = np.random.default_rng(seed)
        self._spared = draw_spared(random, self.nodes)
        self._faults = draw_faults(random, self.nodes, self.devices, gap_s)
        self.kills: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self.at_once: Counter[int] = Counter()
        self.ended: list[str] = []  # nodes that ended by themselves, and the last line of their log
        self.lives: dict[str, list[Life]] = defaultdict(list)
        self._away: dict[str, tuple[float, bool]] = {}  # until when (monotonic), whether killed
        self._up_from_s = dict.fromkeys(self.devices, time.time())
        self._up: list[tuple[float, float]] = []
        self._queues = QueueListener(site.port)
        self._verified = 0  # the first sample that the checks during the run have not settled
        for node in self.nodes:
            self._begin_life(node)

    def close(self) -> None:
        self._queues.close()

    def up_times(self) -> list[tuple[float, float]]:
        """From and until when (wall clock) a device was up; infinity where it still is."""
        return [*self._up, *((from_s, math.inf) for from_s in self._up_from_s.values())]

    def run(self, *, fail_fast: bool) -> Iterator[tuple[float, int]]:
        """Yields (elapsed seconds, samples settled so far) about ten times a second."""
        began_s = time.monotonic()
        self.first = self._verified = self.site.tick() + 1
        fault = next(self._faults)
        fault_s = began_s + fault.after_s
        record_s = check_s = began_s
        while (now_s := time.monotonic()) < began_s + self.seconds:
            if now_s >= fault_s:
                epoch = int(EPOCHS * (now_s - began_s) / self.seconds)
                self._strike(fault, self._spared[min(epoch, EPOCHS - 1)])
                fault = next(self._faults)
                fault_s = max(now_s, fault_s + fault.after_s)
            self._bring_back(now_s)
            if self.troubles is not None:
                self.troubles.step(now_s, list(self._away))
            if now_s >= record_s:
                record_s = now_s + 1.0
                self._record_lives()
            if now_s >= check_s:
                check_s = now_s + CHECK_S
                if self._check() and fail_fast:
                    return
            if self.ended and fail_fast:
                return
            yield now_s - began_s, self._verified - self.first
            time.sleep(0.05)

    # ------------------------------------------------------------------- nodes

    def _begin_life(self, node: str) -> None:
        process = psutil.Process(self.site.fleet.find_pid(node))
        self.lives[node].append(Life(process, time.monotonic()))

    def _strike(self, fault: Fault, spared: set[str]) -> None:
        """Signal all nodes of a fault, as nearly at once as signals go."""
        hit = 0
        spared = spared | (self.troubles.guarded.keys() if self.troubles else set())
        for victims, kill in ((fault.kills, True), (fault.stops, False)):
            for node, away_s in victims:
                if node in spared or node in self._away or not self.site.fleet.is_alive(node):
                    continue
                self._note_away(node)
                self.site.fleet.send_signal(node, signal.SIGKILL if kill else signal.SIGSTOP)
                self._away[node] = (time.monotonic() + away_s, kill)
                (self.kills if kill else self.stops)[node] += 1
                hit += 1
        self.at_once[hit] += 1

    def _note_away(self, node: str) -> None:
        if node in self._up_from_s:
            from_s, now_s = self._up_from_s.pop(node), time.time()
            if from_s < now_s:
                self._up.append((from_s, now_s))

    def _bring_back(self, now_s: float) -> None:
        for node, (until_s, killed) in list(self._away.items()):
            if now_s >= until_s:
                del self._away[node]
                if killed:
                    if self.troubles is not None:
                        self.troubles.set_clock_right(node)
                    self.site.fleet.start(node)
                    self._begin_life(node)
                else:
                    self.site.fleet.send_signal(node, signal.SIGCONT)
                if node in self.devices:
                    self._up_from_s[node] = time.time() + (START_S if killed else RESUME_S)
        for node in self.nodes:
            if node not in self._away and not self.site.fleet.is_alive(node):
                self.ended.append(f"{node} ended by itself: {self.site.fleet.read_last_line(node)}")
                self._note_away(node)
                self._away[node] = (now_s + 1.0, True)

    def _record_lives(self) -> None:
        for node in self.nodes:
            if node in self._away:
                continue
            life = self.lives[node][-1]
            with contextlib.suppress(psutil.Error):  # it has just ended: the next turn sees it
                life.record(self._queues.read(node, life.started_s))

    # ----------------------------------------------------------------- samples

    def read_stored(self, samples: range) -> list[StoredAnswer]:
        """The answers that the dashboard reports; none while it cannot be reached."""
        try:
            return self.site.list_stored(samples)
        except (OSError, http.client.HTTPException):  # it died in the middle of its reply
            return []

    def judge(self, samples: range) -> dict[str, Any]:
        rate_hz, deadline_s = self.site.rate_hz, self.site.deadline_s
        pace = self.site.watcher.pace
        return judge_samples(
            self.read_stored(samples), self.up_times(), samples, rate_hz, deadline_s, pace
        )

    def _check(self) -> bool:
        """Read what must be stored by now; True where something is wrong with it.

        The whole store is read again at the end; this finds a failure early.
        """
        with self.site.watcher.lock:  # the store holds them; the soak itself must not grow
            self.site.watcher.answers.clear()
            self.site.watcher.first_s.clear()
        due = self.site.tick(-self.site.deadline_s - MISSED_S)
        samples = range(self._verified, max(self._verified, due))
        if not samples or self._away:
            return False  # the dashboard may be away: check later
        found = self.judge(samples)
        wrong = bool(found["unanswered"] or found["late"] or found["repeated"])
        if not wrong:
            self._verified = samples.stop
        return wrong

    def settle(self) -> range:
        """Bring all nodes back; the samples to judge, once they are stored or time is up."""
        samples = range(self.first, self.site.tick(-self.site.deadline_s))
        until_s = time.monotonic() + SETTLE_S
        if self.troubles is not None:
            self.troubles.end()
        for node, (_, killed) in list(self._away.items()):
            self._away[node] = (0.0, killed)
        while time.monotonic() < until_s:
            self._bring_back(time.monotonic())
            _, stayed = find_owed(self.up_times(), samples, self.site.rate_hz, self.site.deadline_s)
            if len(self.read_stored(samples)) >= int(stayed.sum()) and not self.count_undelivered():
                break
            time.sleep(0.5)
        return samples

    def count_undelivered(self) -> int:
        """How many answers older than a few seconds are still on the nodes' disks."""
        old_s = time.time() - 5.0
        return sum(answer.answered_at_s < old_s for answer in self.site.list_spooled())


def balance_thresholds(manifest: Manifest) -> dict[str, float]:
    """Thresholds by which every exit answers some samples: of the manifest's sweep, those with the
    largest smallest share."""
    if not manifest.sweep:
        return dict(manifest.thresholds)
    return max(manifest.sweep, key=lambda row: min(row.exit_share.values())).thresholds


def run_soak(
    config: SiteConfig,
    seconds: float,
    seed: int,
    *,
    rate_hz: float = 10.0,
    deadline_s: float = 1.5,
    gap_s: float = 3.0,
    trouble_gap_s: float | None = None,
    fail_fast: bool = False,
) -> dict[str, Any]:
    """Run, settle and judge; `failures` is empty where everything held.

    trouble_gap_s: mean time between troubles; None: there are none
    """
    thresholds = balance_thresholds(config.manifest)
    troubles: list[Troubles] = []
    with ExitStack() as stack:

        def prepare(site: Site) -> None:
            if trouble_gap_s is not None:
                troubles.append(Troubles(site, np.random.default_rng([seed, 1]), trouble_gap_s))

        site = stack.enter_context(
            running_site(config, thresholds, prepare, rate_hz=rate_hz, deadline_s=deadline_s)
        )
        for trouble in troubles:
            stack.callback(trouble.close)
        run = Soak(site, seconds, seed, gap_s, *troubles)
        stack.callback(run.close)
        with progress_bar("soak", seconds) as progress:
            for elapsed_s, settled in run.run(fail_fast=fail_fast):
                progress(elapsed_s, f"soak, {settled} samples settled")
        samples = run.judge(run.settle())
        undelivered = run.count_undelivered()
    edges = {group.id for group in config.manifest.hierarchy.edges}
    with_database = {*run.nodes} - {BROKER, *run.devices, *edges}
    # A node may still be away from a fault when the epoch in which it is spared begins.
    long_lives = seconds / EPOCHS >= MIN_LIFE_S + DOWN_S[1] + START_S
    figures, failures = judge_growth(run.lives, with_database, long_lives=long_lives)
    for name in ("unanswered", "late", "repeated"):
        if samples[name]:
            failures.append(f"{len(samples[name])} of {samples['owed']} samples {name}")
    if undelivered:
        failures.append(f"{undelivered} answers were still not delivered after {SETTLE_S:.0f} s")
    if not samples["owed"]:
        failures.append("no sample was owed an answer: nothing was tested")
    return {
        "holds": not failures and not run.ended,
        "failures": failures + run.ended,
        "rate_hz": rate_hz,
        "deadline_s": deadline_s,
        "thresholds": thresholds,
        "kills": {node: run.kills[node] for node in run.nodes},
        "stops": {node: run.stops[node] for node in run.nodes},
        "troubles": dict(troubles[0].counts) if troubles else {},
        "troubles_begun": troubles[0].begun if troubles else [],
        "nodes_at_once": {str(n): run.at_once[n] for n in sorted(run.at_once)},
        **samples,
        "growth_judged": long_lives,
        "nodes": figures,
    }
