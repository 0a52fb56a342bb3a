r"""Share a task among workers and gather their pieces until enough are there.

    scatter -> one broadcast message -> pieces come in -> enough (decodable set) -> Enough
                                          |                                    \-> … -> Ended
                                          +-> never enough any more, or time over -> Failed
A worker is known by its retained Lend message, is there by its Status, and is worth counting on
until it has missed two tasks in a row (see Membership).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddnn.core.quorum import Quorum
from ddnn.machines.assign import assign
from ddnn.machines.jobs import Jobs
from ddnn.machines.membership import Membership
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.messages import Assign, Done, Lend, Status, Task, Tensor, WorkerState
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

LIMIT = 256  # tasks at a time; the oldest fails beyond it
MOST_WORKERS = 1024
SMOOTHING = 0.1  # weight of the newest value in an average

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Enough:
    """These pieces suffice. Missing: the live workers that have not answered."""

    job: int
    pieces: Mapping[int, Array]
    missing: tuple[str, ...]
    after_s: float  # since the task was sent


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more is waited for, all of these pieces came in time; Enough was told before."""

    job: int
    pieces: Mapping[int, Array]


@dataclass(frozen=True, slots=True)
class Failed:
    """There will not be enough in time."""

    job: int


Outcome = Enough | Ended | Failed


@dataclass(slots=True)
class _Worker:
    lends: bool = False  # to this plan
    holds: frozenset[int] = frozenset()
    faulty: bool = False  # its answers contradicted the others', in this session
    answered: int = 0
    used: int = 0
    late: int = 0
    missed: int = 0
    latency_s: float = 0.0


@dataclass(slots=True)
class _Job:
    sent_s: float
    asked: frozenset[str]  # the live workers it was sent to
    probe: bool
    pieces: dict[int, Array] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)  # with all of their pieces
    told: bool = False  # Enough was


class Gather:
    """Scatters tasks of one plan to a group of workers. Sans-IO: see `handle`."""

    def __init__(
        self,
        site: str,
        group: str,
        plan: str,
        planned: Mapping[str, tuple[int, ...]],
        enough: Quorum,
        piece_shape: tuple[int, ...],
        *,
        threshold_s: float = 0.0,
        timeout_s: float = 0.12,
    ) -> None:
        """planned: the pieces of each worker of the plan. piece_shape: of an answer, float32.

        threshold_s: so long all live workers are waited for; then any set that is enough will do
        (Hadidi et al., EDGE 2023: the straggler threshold; 0: the first set that is enough).
        timeout_s: then a task that has not got enough fails.
        """
        self.site, self.group, self.plan = site, group, plan
        self.counts: dict[str, int] = {}
        self._planned, self._enough = dict(planned), enough
        self._piece_shape = piece_shape
        self._threshold_s, self._timeout_s = min(threshold_s, timeout_s), timeout_s
        self._membership = Membership()
        self._sessions: dict[str, int] = {}  # of all nodes of the site
        self._workers: dict[str, _Worker] = {}
        self._live: frozenset[str] = frozenset()  # see _refresh
        self._assigned: dict[str, tuple[int, ...]] = dict(planned)
        self._announced: dict[str, tuple[int, ...]] | None = None
        self._connected = False
        self._jobs: Jobs[int, _Job] = Jobs(LIMIT)
        self._job = 0

    # --------------------------------------------------------------- asked by others

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.DONE, self.site),
            topic_filter(Kind.LEND, self.site),
            *presence_filters(self.site)[:1],
        ]

    def deadline_s(self) -> float | None:
        return self._jobs.next_due_s()

    @property
    def live_pieces(self) -> frozenset[int]:
        """What the workers hold that are worth counting on."""
        return frozenset(piece for worker in self._live for piece in self._ready(worker))

    @property
    def possible(self) -> bool:
        """Whether the live workers are enough."""
        return self._enough(self.live_pieces)

    def states(self) -> dict[str, WorkerState]:
        """All planned and lending workers, for people to look at."""
        names = sorted({*self._planned, *self._workers})
        return {name: self._state(name) for name in names[:MOST_WORKERS]}

    def distrust(self, pieces: tuple[int, ...]) -> list[Effect]:
        """These pieces contradict the others: count on their workers no more in this session."""
        for name, worker in self._workers.items():
            if not worker.faulty and not set(pieces).isdisjoint(self._assigned.get(name, ())):
                worker.faulty = True
                self._count("workers_faulty")
        return self._reassign()

    # ------------------------------------------------------------------ a task

    def scatter(self, x: Array, now: Now, *, probe: bool = False) -> tuple[int, list[Effect]]:
        """Send a task to all workers; its number, which no other task ever had.

        x: float32. probe: only to learn who answers: the job neither succeeds nor fails.
        """
        # Numbers go on over restarts, so that answers to a former life are not taken for ours.
        self._job = max(self._job + 1, int(now.wall_s * 1e3))
        job = _Job(now.monotonic_s, self._live, probe)
        due_s = now.monotonic_s + (self._threshold_s or self._timeout_s)
        self._jobs.open(self._job, job, now.monotonic_s, due_s)
        task = Task(1, self.plan, self._job, Tensor.of(x))
        return self._job, [Publish(Topic(self.site, Kind.TASK, self.group), task)]

    def probe_due(self, now: Now) -> bool:
        """Whether to ask those who stalled once more, while nothing else is asked."""
        asked = False
        for worker in self._assigned.keys() - self._live:
            asked |= self._membership.probe(worker, now.monotonic_s)
        return asked

    def handle(self, event: Event, now: Now) -> tuple[list[Effect], list[Outcome]]:
        """Effects to perform, and what has become of tasks."""
        effects: list[Effect] = []
        outcomes: list[Outcome] = []
        match event:
            case Received(Topic(_, Kind.DONE, node), Done() as done):
                outcomes = self._done(node, done, now)
            case Received(Topic(_, Kind.STATUS, node), Status() as status):
                effects = self._status(node, status)
                outcomes = self._look_again(now)
            case Received(Topic(_, Kind.LEND, node), Lend() as lend):
                effects = self._lend(node, lend)
                outcomes = self._look_again(now)
            case Connected():
                self._connected = True
                self._announced = None
                effects = self._reassign()
            case Disconnected():
                self._connected = False
                self._membership = Membership()
                self._refresh()
                outcomes = self._look_again(now)
        for key in self._jobs.due(now.monotonic_s):
            outcomes += self._due(key, now)
        while len(self._jobs) >= LIMIT:  # room for the next task
            outcomes += self._close(self._jobs.items()[0][0])
        return effects, outcomes

    def _done(self, node: str, done: Done, now: Now) -> list[Outcome]:
        worker = self._workers.get(node)
        z = done.z.array() if self._fits(node, done) else None
        if worker is None or worker.faulty or z is None or not np.isfinite(z).all():
            self._count("done_refused")
            return []
        job = self._jobs.get(done.job)
        if job is None or done.piece in job.pieces:
            self._count("done_late")
            self._in_time(node, done.job, now)
            return []
        after_s = now.monotonic_s - job.sent_s
        worker.answered += 1
        worker.used += not job.told
        worker.late += job.told
        worker.latency_s = smoothed(worker.latency_s, after_s)
        job.pieces[done.piece] = z
        if self._ready(node) <= job.pieces.keys():
            job.answered.add(node)
            self._membership.reported(node)
            self._refresh()
        return self._progress(done.job, job, now)

    def _fits(self, node: str, done: Done) -> bool:
        return (
            done.plan == self.plan
            and done.piece in self._assigned.get(node, ())
            and done.z.shape == self._piece_shape
            and done.z.type == "float32"
        )

    def _in_time(self, node: str, key: int, now: Now) -> None:
        """The others were quicker; a worker that stalled is worth counting on again."""
        sent_s = self._jobs.opened_s(key)
        if sent_s is not None and now.monotonic_s <= sent_s + self._timeout_s:
            self._membership.reported(node)
            self._refresh()

    def _progress(self, key: int, job: _Job, now: Now, *, lost: bool = False) -> list[Outcome]:
        """What the job has come to: enough, hopeless (only if workers were lost), at its end."""
        after_s = now.monotonic_s - job.sent_s
        awaited = (self._live & job.asked) - job.answered
        outcomes: list[Outcome] = []
        if not job.told and not job.probe:
            if (after_s >= self._threshold_s or not awaited) and self._enough(job.pieces.keys()):
                job.told = True
                outcomes.append(Enough(key, dict(job.pieces), tuple(sorted(awaited)), after_s))
            elif lost and not self._hopeful(job, awaited):
                return self._close(key)
        if not awaited and not job.probe:
            outcomes += self._close(key)
        return outcomes

    def _hopeful(self, job: _Job, awaited: frozenset[str]) -> bool:
        coming = (piece for worker in awaited for piece in self._ready(worker))
        return self._enough({*job.pieces, *coming})

    def _due(self, key: int, now: Now) -> list[Outcome]:
        job = self._jobs.get(key)
        if job is None:
            return []
        if now.monotonic_s < job.sent_s + self._timeout_s:  # the straggler threshold
            self._jobs.reschedule(key, job.sent_s + self._timeout_s)
            return self._progress(key, job, now)
        missing = (self._live & job.asked) - job.answered
        for node in missing:
            self._workers[node].missed += 1
        self._membership.missed(missing, now.monotonic_s)
        self._refresh()
        return self._close(key)

    def _close(self, key: int) -> list[Outcome]:
        job = self._jobs.close(key)
        if job.told:
            return [Ended(key, job.pieces)]
        return [] if job.probe else [Failed(key)]

    def _look_again(self, now: Now) -> list[Outcome]:
        """Somebody came or went: tasks that waited only for them need not wait any more."""
        outcomes: list[Outcome] = []
        for key, job in self._jobs.items():
            outcomes += self._progress(key, job, now, lost=True)
        return outcomes

    # ----------------------------------------------------------------- workers

    def _status(self, node: str, status: Status) -> list[Effect]:
        """Of any node: a worker's Status may come before its Lend."""
        if node not in self._sessions and len(self._sessions) >= 4 * MOST_WORKERS:
            return []
        if status.state == "online" and self._sessions.get(node) != status.session:
            self._sessions[node] = status.session
            if node in self._workers:
                self._workers[node].faulty = False
        self._membership.admit(node)
        self._membership.status(node, status)
        return self._reassign()

    def _lend(self, node: str, lend: Lend) -> list[Effect]:
        if node not in self._workers and len(self._workers) >= MOST_WORKERS:
            return []
        worker = self._workers.setdefault(node, _Worker())
        worker.lends = lend.plan == self.plan
        worker.holds = frozenset(lend.holds) if worker.lends else frozenset()
        if not worker.lends:
            self._count("wrong_plan")
        return self._reassign()

    def _reassign(self) -> list[Effect]:
        """Tell the workers what to hold, where that has changed."""
        present = [
            name
            for name, worker in self._workers.items()
            if worker.lends and not worker.faulty and name in self._membership.online
        ]
        assigned = assign(self._planned, present, self._assigned)
        # Those who are away keep theirs in our books: an answer on its way still counts.
        self._assigned = {**self._planned, **assigned}
        self._refresh()
        if not self._connected or assigned == self._announced:
            return []
        self._announced = assigned
        pieces = {worker: list(held) for worker, held in assigned.items()}
        return [Publish(Topic(self.site, Kind.ASSIGN, self.group), Assign(self.plan, pieces))]

    def _refresh(self) -> None:
        """Who is worth counting on: there, in time lately, not faulty, with a piece loaded."""
        self._live = frozenset(
            name
            for name in self._membership.live & self._workers.keys()
            if not self._workers[name].faulty and self._ready(name)
        )

    def _ready(self, worker: str) -> frozenset[int]:
        """The pieces that a worker shall compute and has loaded."""
        known = self._workers.get(worker)
        return known.holds.intersection(self._assigned.get(worker, ())) if known else frozenset()

    def _state(self, name: str) -> WorkerState:
        worker = self._workers.get(name, _Worker())
        state: Literal["live", "loading", "stalled", "lost", "faulty"]
        if worker.faulty:
            state = "faulty"
        elif name not in self._membership.online:
            state = "lost"
        elif name in self._live:
            state = "live"
        elif name in self._membership.live:
            state = "loading"
        else:
            state = "stalled"
        return WorkerState(
            state,
            list(self._assigned.get(name, ())),
            name in self._planned,
            worker.answered,
            worker.used,
            worker.late,
            worker.missed,
            1e3 * worker.latency_s,
        )

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def smoothed(average: float, value: float) -> float:
    """Exponential average; the first value counts whole."""
    return value if not average else average + SMOOTHING * (value - average)
