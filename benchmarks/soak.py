"""A site under random deaths: is every sample answered in time, and does nothing grow?

    python -m benchmarks.soak --minutes 30 --seed 0 --json

A real site (Mosquitto, cloud, edge, six devices, each a process) runs while nodes, the broker
included, are killed (SIGKILL) or stopped (SIGSTOP) at random, one or several at once, every few
seconds, and brought back after a random short while. Exit code 1 when something does not hold.

Which samples count. A device counts as up from START_S after it was started (RESUME_S after it was
continued) until the instant before it is killed or stopped. A sample is *owed* an answer if at
least one device is up from its capture to its deadline. It is not owed if no device was up at its
capture (`unseen`), or if every device that was up then went away before the deadline and may have
taken the sample along (`lost_with_all_that_saw_it`); both are counted, and so is how many of them
were answered all the same. Every owed sample must have exactly one stored answer, with a label,
and its first answer must have been given within the deadline after its capture tick.

What may grow. Fleets of short lives would hide a slow leak, so the run is cut into epochs, and in
each some nodes are spared, everyone in turn: each has one long life while all others die around
it. In every life of at least MIN_LIFE_S the medians of the first and the last quarter after
WARM_UP_S are compared, by the bounds of BOUNDS. Memory is what is resident and not backed by a
file: the demo's cameras map their frames from one. A sample leaves its number behind in the
machines' bounded memory of what is closed (8192 samples, under 2 MB), the allocator adds as much
again; a process that holds the database has SQLite's page cache as well (2 MB for each of a few
connections). Handles and threads may differ by those of a reconnect that is under way.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import psutil
from numpy.typing import NDArray

from benchmarks.bare import connect
from benchmarks.hierarchy import variant
from benchmarks.report import bar, ended_cleanly, header, parser, quantiles_ms, show
from ddnn.adapters import broker as brokers
from ddnn.exits.manifest import Manifest
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import BROKER, Site, SiteConfig, StoredAnswer
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Stats
from ddnn.protocol.topics import Kind, parse, topic_filter

START_S = 5.0  # until a started device surely captures, others starting beside it
RESUME_S = 0.5  # the same for a continued one
SETTLE_S = 90.0  # at the end: until all that was kept on disks is delivered
CHECK_S = 10.0  # how often the store is looked at on the way
PATIENCE_S = 60.0  # a sample that is not stored this long after its deadline is missed on the way
DOWN_S = (0.3, 6.0)
STOP_SHARE = 0.2  # of faults that stop instead of kill
CROWDS = ((1, 0.55), (2, 0.25), (3, 0.12))  # nodes at once, share; the rest: all devices, or all
EPOCHS = 5
SILENCE_S = 15.0  # what a machine said of its queue before that is not what it is now
WARM_UP_S, MIN_LIFE_S = 30.0, 90.0


@dataclass(frozen=True)
class Bounds:
    """How much a long life may grow, and what no life may reach."""

    memory_mb: float = 4.0
    handles: float = 4
    threads: float = 2
    queue: float = 100  # messages waiting for the machine: about a second's worth
    peak_handles: float = 128
    peak_threads: float = 64  # the page's server holds 40
    peak_queue: float = 5000  # a quarter of where the loop refuses messages


BOUNDS = Bounds()
STORES_MEMORY_MB = 16.0  # of the processes that hold the database


# ------------------------------------------------------------------- faults


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at once, `after_s` the one before."""

    after_s: float
    kills: tuple[tuple[str, float], ...]  # node, how long it is away
    stops: tuple[tuple[str, float], ...]


def faults(
    random: np.random.Generator, nodes: Sequence[str], devices: Sequence[str], gap_s: float
) -> Iterator[Fault]:
    """Endless. Gaps are uniform around `gap_s`; the same seed gives the same faults."""
    while True:
        after_s = float(random.uniform(0.3, 1.7)) * gap_s
        draw, hit = float(random.uniform()), list(nodes)
        for size, share in CROWDS:
            if draw < share:
                hit = [str(node) for node in random.choice(nodes, size, replace=False)]
                break
            draw -= share
        else:
            if random.uniform() < 0.5:
                hit = list(devices)
        away = [(node, float(random.uniform(*DOWN_S))) for node in hit]
        stopped = random.uniform(size=len(away)) < STOP_SHARE
        yield Fault(
            after_s,
            tuple(pair for pair, stop in zip(away, stopped, strict=True) if not stop),
            tuple(pair for pair, stop in zip(away, stopped, strict=True) if stop),
        )


def spared(random: np.random.Generator, nodes: Sequence[str]) -> list[set[str]]:
    """By epoch: who is left alone. Each node once."""
    order = [str(node) for node in random.permutation(list(nodes))]
    return [set(order[epoch::EPOCHS]) for epoch in range(EPOCHS)]


# ------------------------------------------------------------------ samples


def owed(
    up: Sequence[tuple[float, float]], wanted: range, rate_hz: float, deadline_s: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each wanted sample: whether any device was up at its capture, and whether one that was
    stayed until the deadline. `up`: from and until when a device was up, wall clock."""
    at_s = np.arange(wanted.start, wanted.stop) / rate_hz
    seen, stayed = np.zeros(len(wanted), bool), np.zeros(len(wanted), bool)
    for from_s, until_s in up:
        captured = (from_s <= at_s) & (at_s < until_s)
        seen |= captured
        stayed |= captured & (at_s + deadline_s <= until_s)
    return seen, stayed


def judge(
    stored: Sequence[StoredAnswer],
    up: Sequence[tuple[float, float]],
    wanted: range,
    rate_hz: float,
    deadline_s: float,
) -> dict[str, Any]:
    """The figures about samples; `unanswered`, `late` and `repeated` name the samples."""
    seen, stayed = owed(up, wanted, rate_hz, deadline_s)
    times = Counter(record.answer.sample for record in stored)
    took_s = {
        record.answer.sample: record.first_answered_at_s - record.answer.sample / rate_hz
        for record in stored
        if record.answer.label >= 0
    }
    must = [sample for sample, is_owed in zip(wanted, stayed, strict=True) if is_owed]
    excused = [sample for sample, is_owed in zip(wanted, stayed, strict=True) if not is_owed]
    return {
        "samples": len(wanted),
        "owed": len(must),
        "unseen": int((~seen).sum()),
        "lost_with_all_that_saw_it": int((seen & ~stayed).sum()),
        "answered_though_not_owed": sum(sample in took_s for sample in excused),
        "unanswered": [sample for sample in must if sample not in took_s],
        "late": {
            sample: round(took_s[sample], 3)
            for sample in must
            if took_s.get(sample, 0.0) > deadline_s
        },
        "repeated": [sample for sample, count in times.items() if count > 1],
        "exits": dict(Counter(r.answer.exit for r in stored)),
        "quality": dict(Counter(r.answer.quality for r in stored)),
        "first_answer": {
            **quantiles_ms([took_s[sample] for sample in must if sample in took_s]),
            "max_ms": round(1e3 * max(took_s.values(), default=math.nan), 1),
        },
    }


# ------------------------------------------------------------------- growth


NAMES = ("memory_mb", "handles", "threads", "queue")
Row = tuple[float, float, float, float, float]  # age_s, and what NAMES says


@dataclass(slots=True)
class Life:
    """One process from start to end, looked at every second."""

    process: psutil.Process
    started_s: float  # monotonic
    # memory not backed by a file; a queue that has not been told is NaN
    rows: list[Row] = field(default_factory=list)

    def look(self, queue: float | None) -> None:
        with self.process.oneshot():
            memory = self.process.memory_info()
            self.rows.append(
                (
                    time.monotonic() - self.started_s,
                    (memory.rss - memory.shared) / 2**20,
                    self.process.num_fds(),
                    self.process.num_threads(),
                    math.nan if queue is None else queue,
                )
            )


def growth(rows: Sequence[Row]) -> NDArray[np.float64] | None:
    """By how much memory, handles, threads and queue grew in a life; None: too short to tell.

    NaN where a life has never said it, which is within no bound.
    """
    table = np.array(rows, float)
    if not len(table) or table[-1, 0] < MIN_LIFE_S:
        return None
    table = table[table[:, 0] >= WARM_UP_S, 1:]
    quarter = max(1, len(table) // 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN
        first, last = (np.nanmedian(some, axis=0) for some in (table[:quarter], table[-quarter:]))
    return np.asarray(last - first)


def resources(
    lives: dict[str, list[Life]], stores: set[str], *, judged: bool
) -> tuple[dict[str, Any], list[str]]:
    """Figures by node, and sentences about what went beyond its bound."""
    report: dict[str, Any] = {}
    wrong: list[str] = []
    for node, of_node in lives.items():
        grown = [g for life in of_node if (g := growth(life.rows)) is not None]
        rows = [row for life in of_node for row in life.rows] or [(0.0, 0.0, 0.0, 0.0, 0.0)]
        most = np.max(grown, axis=0) if grown else None
        peak = np.max(np.nan_to_num(np.array(rows, float)), axis=0)
        report[node] = {
            "lives": len(of_node),
            "longest_life_s": round(float(peak[0]), 1),
            "lives_judged": len(grown),
            "growth": None if most is None else named(most),
            "peak": named(peak[1:]),
        }
        if most is not None:
            memory_mb = STORES_MEMORY_MB if node in stores else BOUNDS.memory_mb
            allowed = (memory_mb, BOUNDS.handles, BOUNDS.threads, BOUNDS.queue)
            wrong += beyond(f"{node}: %s grew by %.1f in one life", most, allowed)
        elif judged:
            wrong.append(f"{node}: no life of {MIN_LIFE_S:.0f} s to judge growth by")
        allowed = (math.inf, BOUNDS.peak_handles, BOUNDS.peak_threads, BOUNDS.peak_queue)
        wrong += beyond(f"{node}: %s reached %.1f", peak[1:], allowed)
    return report, wrong


def named(figures: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        name: None if math.isnan(x) else round(float(x), 2)
        for name, x in zip(NAMES, figures, strict=True)
    }


def beyond(text: str, figures: NDArray[np.float64], allowed: Sequence[float]) -> list[str]:
    return [
        f"{text % (name, figure)}, allowed are {bound:g}"
        for name, figure, bound in zip(NAMES, figures, allowed, strict=True)
        if not figure <= bound
    ]


class Queues:
    """How many messages wait: for each machine by its Stats, in Mosquitto by what it says it holds
    (retained ones included), which it says only when that has changed."""

    def __init__(self, port: int) -> None:
        self._told: dict[str, tuple[float, float]] = {}  # by node: when (monotonic), messages
        filters = ["$SYS/broker/store/messages/count", topic_filter(Kind.STATS, SITE)]
        self._client = connect("soak", port, filters)
        self._client.reconnect_delay_set(1, 2)
        self._client.on_message = self._on_message
        self._client.loop_start()  # connects again by itself

    def _on_message(self, _c: object, _u: object, message: paho.MQTTMessage) -> None:
        now_s = time.monotonic()
        if message.topic.startswith("$SYS"):
            self._told[BROKER] = now_s, float(message.payload)
            return
        stats = decode(Kind.STATS, bytes(message.payload))
        if isinstance(stats, Stats):
            self._told[parse(message.topic).node] = now_s, stats.gauges["queue"]

    def since(self, node: str, from_s: float) -> float | None:
        """What a node said last; None: nothing since then, or, by a machine, for SILENCE_S."""
        at_s, queue = self._told.get(node, (-math.inf, math.nan))
        if node != BROKER:
            from_s = max(from_s, time.monotonic() - SILENCE_S)
        return queue if at_s > from_s else None

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


# --------------------------------------------------------------------- soak


class Soak:
    """One run over a started site."""

    def __init__(self, site: Site, seconds: float, seed: int, gap_s: float) -> None:
        self.site, self.seconds = site, seconds
        hierarchy = site.config.manifest.hierarchy
        self.devices = list(hierarchy.devices)
        self.nodes = list(site.fleet.nodes)
        random = np.random.default_rng(seed)
        self._spared = spared(random, self.nodes)
        self._faults = faults(random, self.nodes, self.devices, gap_s)
        self.kills: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self.at_once: Counter[int] = Counter()
        self.ended: list[str] = []  # nodes that ended by themselves, and their last words
        self.lives: dict[str, list[Life]] = defaultdict(list)
        self._due: dict[str, tuple[float, bool]] = {}  # away: until when (monotonic), whether dead
        self._up_from_s = dict.fromkeys(self.devices, time.time())
        self._up: list[tuple[float, float]] = []
        self._queues = Queues(site.port)
        self._verified = 0  # the first sample that the checks on the way have not settled
        for node in self.nodes:
            self._born(node)

    def close(self) -> None:
        self._queues.close()

    def up(self) -> list[tuple[float, float]]:
        """When devices were up, those that still are without an end."""
        return [*self._up, *((from_s, math.inf) for from_s in self._up_from_s.values())]

    def run(self, *, fail_fast: bool) -> Iterator[tuple[float, int]]:
        """Yields (elapsed seconds, samples settled so far) about ten times a second."""
        began_s = time.monotonic()
        self.first = self._verified = self.site.tick() + 1
        fault = next(self._faults)
        fault_s = began_s + fault.after_s
        look_s = check_s = began_s
        while (now_s := time.monotonic()) < began_s + self.seconds:
            if now_s >= fault_s:
                epoch = int(EPOCHS * (now_s - began_s) / self.seconds)
                self._strike(fault, self._spared[min(epoch, EPOCHS - 1)])
                fault = next(self._faults)
                fault_s = max(now_s, fault_s + fault.after_s)
            self._bring_back(now_s)
            if now_s >= look_s:
                look_s = now_s + 1.0
                self._look()
            if now_s >= check_s:
                check_s = now_s + CHECK_S
                if self._check() and fail_fast:
                    return
            if self.ended and fail_fast:
                return
            yield now_s - began_s, self._verified - self.first
            time.sleep(0.05)

    # ------------------------------------------------------------------- nodes

    def _born(self, node: str) -> None:
        process = psutil.Process(self.site.fleet.pid(node))
        self.lives[node].append(Life(process, time.monotonic()))

    def _strike(self, fault: Fault, left_alone: set[str]) -> None:
        """All at once, as nearly as signals go."""
        hit = 0
        for victims, dead in ((fault.kills, True), (fault.stops, False)):
            for node, away_s in victims:
                if node in left_alone or node in self._due or not self.site.fleet.alive(node):
                    continue
                self._went(node)
                self.site.fleet.signal(node, signal.SIGKILL if dead else signal.SIGSTOP)
                self._due[node] = (time.monotonic() + away_s, dead)
                (self.kills if dead else self.stops)[node] += 1
                hit += 1
        self.at_once[hit] += 1

    def _went(self, node: str) -> None:
        if node in self._up_from_s:
            from_s, now_s = self._up_from_s.pop(node), time.time()
            if from_s < now_s:
                self._up.append((from_s, now_s))

    def _bring_back(self, now_s: float) -> None:
        for node, (due_s, dead) in list(self._due.items()):
            if now_s >= due_s:
                del self._due[node]
                if dead:
                    self.site.fleet.start(node)
                    self._born(node)
                else:
                    self.site.fleet.signal(node, signal.SIGCONT)
                if node in self.devices:
                    self._up_from_s[node] = time.time() + (START_S if dead else RESUME_S)
        for node in self.nodes:
            if node not in self._due and not self.site.fleet.alive(node):
                self.ended.append(f"{node} ended by itself: {self.site.fleet.tail(node)}")
                self._went(node)
                self._due[node] = (now_s + 1.0, True)

    def _look(self) -> None:
        for node in self.nodes:
            if node in self._due:
                continue
            life = self.lives[node][-1]
            with contextlib.suppress(psutil.Error):  # it has just ended: the next turn sees it
                life.look(self._queues.since(node, life.started_s))

    # ----------------------------------------------------------------- samples

    def stored(self, wanted: range) -> list[StoredAnswer]:
        """What the page's process tells; nothing while it is away."""
        try:
            return self.site.stored(wanted)
        except (OSError, http.client.HTTPException):  # it died in the middle of its reply
            return []

    def judge(self, wanted: range) -> dict[str, Any]:
        rate_hz, deadline_s = self.site.rate_hz, self.site.deadline_s
        return judge(self.stored(wanted), self.up(), wanted, rate_hz, deadline_s)

    def _check(self) -> bool:
        """Look at what must be stored by now; True where something is wrong with it.

        The store is read again as a whole at the end; this only tells early.
        """
        with self.site.watcher.lock:  # the store knows them; a soak must not grow itself
            self.site.watcher.answers.clear()
            self.site.watcher.first_s.clear()
        ripe = self.site.tick(-self.site.deadline_s - PATIENCE_S)
        wanted = range(self._verified, max(self._verified, ripe))
        if not wanted or self._due:
            return False  # whoever serves the page may be away: later
        seen = self.judge(wanted)
        wrong = bool(seen["unanswered"] or seen["late"] or seen["repeated"])
        if not wrong:
            self._verified = wanted.stop
        return wrong

    def settle(self) -> range:
        """Bring all back; the samples to judge, once they are stored or time is up."""
        wanted = range(self.first, self.site.tick(-self.site.deadline_s))
        until_s = time.monotonic() + SETTLE_S
        for node, (_, dead) in list(self._due.items()):
            self._due[node] = (0.0, dead)
        while time.monotonic() < until_s:
            self._bring_back(time.monotonic())
            _, stayed = owed(self.up(), wanted, self.site.rate_hz, self.site.deadline_s)
            if len(self.stored(wanted)) >= int(stayed.sum()) and not self.kept():
                break
            time.sleep(0.5)
        return wanted

    def kept(self) -> int:
        """Answers older than a few seconds that lie on the nodes' disks still."""
        old_s = time.time() - 5.0
        return sum(answer.answered_at_s < old_s for answer in self.site.spooled())


def balanced(manifest: Manifest) -> dict[str, float]:
    """Thresholds by which every exit answers some: of the sweep, those with the evenest shares."""
    if not manifest.sweep:
        return dict(manifest.thresholds)
    return max(manifest.sweep, key=lambda row: min(row.exit_share.values())).thresholds


def soak(
    plan: SiteConfig,
    seconds: float,
    seed: int,
    *,
    rate_hz: float = 10.0,
    deadline_s: float = 1.5,
    gap_s: float = 3.0,
    fail_fast: bool = False,
) -> dict[str, Any]:
    """Run, settle, judge; `failures` is empty where everything held."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-soak-")))
        bundle = variant(plan.bundle, directory / "bundle", balanced(plan.manifest))
        plan = SiteConfig(plan.manifest, bundle, plan.frames, plan.labels)
        site = Site(
            plan,
            "mosquitto",
            directory,
            rate_hz=rate_hz,
            deadline_s=deadline_s,
            http_port=brokers.free_port(),
        )
        stack.callback(site.close)
        site.start()
        run = Soak(site, seconds, seed, gap_s)
        stack.callback(run.close)
        with bar("soak", seconds) as progress:
            for elapsed_s, settled in run.run(fail_fast=fail_fast):
                progress(elapsed_s, f"soak, {settled} samples settled")
        samples = run.judge(run.settle())
        kept = run.kept()
        stores = {node for node in run.nodes if node not in (BROKER, *run.devices)}
        stores -= {group.id for group in plan.manifest.hierarchy.edges}
        judged = seconds / EPOCHS >= MIN_LIFE_S + DOWN_S[1] + START_S  # who is spared may be away
        figures, failures = resources(run.lives, stores, judged=judged)
        for name in ("unanswered", "late", "repeated"):
            if samples[name]:
                failures.append(f"{len(samples[name])} of {samples['owed']} samples {name}")
        if kept:
            failures.append(f"{kept} answers were still not delivered after {SETTLE_S:.0f} s")
        if not samples["owed"]:
            failures.append("no sample was owed an answer: nothing was tested")
        return {
            "holds": not failures and not run.ended,
            "failures": failures + run.ended,
            "rate_hz": rate_hz,
            "deadline_s": deadline_s,
            "thresholds": balanced(plan.manifest),
            "kills": {node: run.kills[node] for node in run.nodes},
            "stops": {node: run.stops[node] for node in run.nodes},
            "nodes_at_once": {str(n): run.at_once[n] for n in sorted(run.at_once)},
            **samples,
            "growth_judged": judged,
            "nodes": figures,
        }


def main() -> None:
    parse = parser(__doc__)
    parse.add_argument("--minutes", type=float, default=30.0, help="how long [30]")
    parse.add_argument("--seed", type=int, default=0, help="of the faults [0]")
    parse.add_argument("--rate-hz", type=float, default=10.0, help="samples per second [10]")
    parse.add_argument("--deadline-s", type=float, default=1.5, help="of a sample [1.5]")
    parse.add_argument("--gap-s", type=float, default=3.0, help="mean time between faults [3]")
    parse.add_argument("--fail-fast", action="store_true", help="end at the first thing wrong")
    parse.add_argument("--data", default="scenes", help="data set of the demo's bundle [scenes]")
    parse.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parse.parse_args()
    ended_cleanly()
    plan = prepare_site(arguments.data, 6, "e", arguments.bundle, 0)
    result = soak(
        plan,
        60 * arguments.minutes,
        arguments.seed,
        rate_hz=arguments.rate_hz,
        deadline_s=arguments.deadline_s,
        gap_s=arguments.gap_s,
        fail_fast=arguments.fail_fast,
    )
    result = {**header("soak"), "minutes": arguments.minutes, "seed": arguments.seed, **result}
    show(result, one_line=arguments.json)
    sys.exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    main()
