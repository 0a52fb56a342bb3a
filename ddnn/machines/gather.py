r"""Share a task among workers and gather their pieces until enough are there.

    scatter -> one broadcast message -> pieces come in -> enough (decodable set) -> Enough
                                          |                                    \-> … -> Ended
                                          +-> never enough any more, or time over -> Failed
A worker is known by its retained WorkerOffer, is there by its Status, and is worth counting on
until it has missed two tasks in a row (see Membership). The planned workers always have their own
pieces; where one is not at work, a spare gets the same ones until it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ddnn.core.quorum import Quorum
from ddnn.machines.assign import stand_ins
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
from ddnn.protocol.messages import (
    MAX_PIECES,
    Assignment,
    Result,
    Status,
    Task,
    Tensor,
    WorkerOffer,
    WorkerState,
)
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

LIMIT = 256  # tasks at a time; the oldest ends beyond it
MOST_WORKERS = 1024  # besides the planned ones
MOST_NODES = 4 * MOST_WORKERS  # of the site, whose presence is remembered
SETTLE_S = 0.2  # pieces are assigned anew so long after a change: changes come in swarms
LOAD_S = 3.0  # a spare that has not loaded its pieces by then gives way to another
MOST_DOUBLINGS = 5  # of this time, for a spare that failed to before
REPEAT_S = 5.0  # at most so often are workers told again that hold other pieces than they shall
SMOOTHING = 0.1  # weight of the newest value in an average

Array = NDArray[Any]
NO_PIECES: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Enough:
    """These pieces suffice. Missing: the live workers that have not answered."""

    job: int
    pieces: Mapping[int, Array]
    givers: Mapping[int, str]  # who gave each piece
    missing: tuple[str, ...]
    after_s: float  # since the task was sent


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more is waited for, all of these pieces came in time; Enough was told before."""

    job: int
    pieces: Mapping[int, Array]
    givers: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """There will not be enough in time."""

    job: int


Outcome = Enough | Ended | Failed


@dataclass(slots=True)
class _Worker:
    """One that lends to this plan."""

    holds: frozenset[int] = NO_PIECES
    faulty: bool = False  # its answers contradicted the others', in this session
    given_s: float = 0.0  # when it was given the pieces it has as a spare, or one more chance
    failures: int = 0  # to load such pieces in time, in this session
    answered: int = 0
    used: int = 0
    late: int = 0
    missed: int = 0
    latency_s: float = 0.0

    @property
    def due_s(self) -> float:
        """When a spare must have loaded; later each time, for loading may just be slow."""
        return self.given_s + LOAD_S * 2.0 ** min(self.failures, MOST_DOUBLINGS)


@dataclass(slots=True)
class _Job:
    sent_s: float
    asked: Mapping[str, frozenset[int]]  # the live workers it was sent to, and what they held
    awaited: set[str]  # of them, those whose pieces are not all there and may still come
    patient: bool  # all are waited for, until the straggler threshold
    probe: bool
    pieces: dict[int, Array] = field(default_factory=dict)
    givers: dict[int, str] = field(default_factory=dict)
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
        self._assigned: dict[str, tuple[int, ...]] = dict(planned)
        self._announced: dict[str, tuple[int, ...]] | None = None
        self._announced_s = 0.0
        self._contradicted = False  # a worker seems to be told otherwise since
        self._assign_s: float | None = None  # when to look whether pieces must be assigned anew
        self.connected = False
        self._jobs: Jobs[int, _Job] = Jobs(LIMIT)
        self._job = 0
        # What follows from the above, worked out when it is asked for: see _refresh.
        self._stale = False
        self._online: frozenset[str] = frozenset()
        self._live: dict[str, frozenset[int]] = {}  # worth counting on, and with what
        self._looked = self._live  # what the open tasks know of
        self._live_pieces = NO_PIECES
        self._possible: bool | None = None

    # --------------------------------------------------------------- asked by others

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.RESULT, self.site),
            topic_filter(Kind.OFFER, self.site),
            *presence_filters(self.site)[:1],
        ]

    def deadline_s(self) -> float | None:
        if self._moved:
            return 0.0
        times = (self._jobs.next_due_s(), self._assign_s)
        return min((time_s for time_s in times if time_s is not None), default=None)

    @property
    def live_pieces(self) -> frozenset[int]:
        """What the workers hold that are worth counting on."""
        self._refresh()
        return self._live_pieces

    @property
    def possible(self) -> bool:
        """Whether the live workers are enough."""
        self._refresh()
        if self._possible is None:
            self._possible = self._enough(self._live_pieces)
        return self._possible

    def states(self) -> dict[str, WorkerState]:
        """All planned and lending workers, for people to look at."""
        self._refresh()
        names = sorted({*self._planned, *self._workers})
        return {name: self._state(name) for name in names[:MAX_PIECES]}

    def distrust(self, nodes: Collection[str], now: Now) -> None:
        """Their answers contradict the others': count on them no more in this session."""
        for node in nodes:
            if node in self._workers and not self._workers[node].faulty:
                self._workers[node].faulty = True
                self._count("workers_faulty")
                self._changed(now)
        for job in (job for _, job in self._jobs.items()):
            for piece in [piece for piece, node in job.givers.items() if node in nodes]:
                del job.pieces[piece]
                job.awaited.add(job.givers.pop(piece))  # until it is seen that it will not come

    # ------------------------------------------------------------------ a task

    def scatter(
        self, x: Array, now: Now, *, probe: bool = False
    ) -> tuple[int, list[Effect], list[Outcome]]:
        """Send a task to all workers; its number, which no other task ever had.

        x: float32. probe: only to learn who answers: the job neither succeeds nor fails.
        Returns also what becomes of an older task where there are too many.
        """
        self._refresh()
        # Numbers go on over restarts, so that answers to a former life are not taken for ours.
        self._job = max(self._job + 1, int(now.wall_s * 1e3))
        patient = self._threshold_s > 0
        job = _Job(now.monotonic_s, self._live, set(self._live), patient, probe)
        due_s = now.monotonic_s + (self._threshold_s if patient else self._timeout_s)
        evicted = self._jobs.open(self._job, job, now.monotonic_s, due_s)
        task = Task(1, self.plan, self._job, Tensor.of(x))
        outcomes = _end(*evicted) if evicted else []
        return self._job, [Publish(Topic(self.site, Kind.TASK, self.group), task)], outcomes

    def probe_due(self, now: Now) -> bool:
        """Whether to ask those who stalled once more, while nothing else is asked."""
        self._refresh()
        asked = False
        for worker in self._assigned.keys() - self._live.keys():
            asked |= self._membership.probe(worker, now.monotonic_s)
        return asked

    def handle(self, event: Event, now: Now) -> tuple[list[Effect], list[Outcome]]:
        """Effects to perform, and what has become of tasks."""
        outcomes: list[Outcome] = []
        match event:
            case Received(Topic(_, Kind.RESULT, node), Result() as done):
                outcomes = self._done(node, done, now)
            case Received(Topic(_, Kind.STATUS, node), Status() as status):
                self._status(node, status, now)
            case Received(Topic(_, Kind.OFFER, node), WorkerOffer() as lend):
                self._lend(node, lend, now)
            case Connected():
                self.connected = True
                self._announced = None  # the broker may have forgotten it
                self._changed(now)
            case Disconnected():
                self.connected = False
                self._membership = Membership()
                self._changed(now)
        for key in self._jobs.due(now.monotonic_s):
            outcomes += self._due(key, now)
        effects: list[Effect] = []
        if self._assign_s is not None and now.monotonic_s >= self._assign_s:
            self._assign_s = None
            effects = self._assign(now)
        if self._moved:
            outcomes += self._look_again(now)
        return effects, outcomes

    def _done(self, node: str, done: Result, now: Now) -> list[Outcome]:
        worker, job = self._workers.get(node), self._jobs.get(done.job)
        if worker is None or worker.faulty or not self._fits(node, done, job):
            self._count("done_refused")
            return []
        z = done.z.array()
        if not np.isfinite(z).all():
            self._count("done_refused")
            return []
        if job is None or done.piece in job.pieces:
            self._count("done_late")
            sent_s = self._jobs.opened_s(done.job)
            if sent_s is not None and now.monotonic_s <= sent_s + self._timeout_s:
                self._in_time(node, now)  # only the others were quicker
            return []
        worker.answered += 1
        worker.used += not job.told
        worker.late += job.told
        worker.latency_s = smoothed(worker.latency_s, now.monotonic_s - job.sent_s)
        job.pieces[done.piece], job.givers[done.piece] = z, node
        if job.asked.get(node, NO_PIECES) <= job.pieces.keys():
            job.awaited.discard(node)
            self._in_time(node, now)
        return self._progress(done.job, job, now)

    def _fits(self, node: str, done: Result, job: _Job | None) -> bool:
        """Whether the piece is one that this worker has, or had when it was asked."""
        asked = job.asked.get(node, NO_PIECES) if job is not None else NO_PIECES
        return (
            done.plan == self.plan
            and (done.piece in asked or done.piece in self._assigned.get(node, ()))
            and done.z.shape == self._piece_shape
            and done.z.type == "float32"
        )

    def _in_time(self, node: str, now: Now) -> None:
        """A worker that stalled is worth counting on again. Presence is told by Status alone: an
        answer that was under way when its worker died brings nobody back."""
        self._refresh()
        if node in self._online:
            self._membership.reported(node)
            if node not in self._live:
                self._changed(now)

    def _progress(self, key: int, job: _Job, now: Now) -> list[Outcome]:
        """What an open job has come to: enough, at its end."""
        outcomes: list[Outcome] = []
        waits = job.told or job.probe or (job.patient and job.awaited)
        if not waits and self._enough(job.pieces.keys()):
            job.told = True
            after_s, missing = now.monotonic_s - job.sent_s, tuple(sorted(job.awaited))
            outcomes.append(Enough(key, dict(job.pieces), dict(job.givers), missing, after_s))
        if not job.awaited and not job.probe:
            outcomes += self._close(key)
        return outcomes

    def _due(self, key: int, now: Now) -> list[Outcome]:
        """The straggler threshold is over, or the whole time."""
        job = self._jobs.get(key)
        if job is None:
            return []
        end_s = job.sent_s + self._timeout_s
        job.patient = False
        outcomes = self._progress(key, job, now)
        if self._jobs.get(key) is None:
            return outcomes
        if now.monotonic_s < end_s:
            self._jobs.reschedule(key, end_s)
            return outcomes
        for node in job.awaited:
            if node in self._workers:
                self._workers[node].missed += 1
        self._membership.missed(job.awaited, now.monotonic_s)
        if not self._live.keys() <= self._membership.live:
            self._changed(now)
        return outcomes + self._close(key)

    def _close(self, key: int) -> list[Outcome]:
        return _end(key, self._jobs.close(key))

    @property
    def _moved(self) -> bool:
        """Whether somebody came or went that open tasks may wait for."""
        return len(self._jobs) > 0 and (self._stale or self._looked is not self._live)

    def _look_again(self, now: Now) -> list[Outcome]:
        """Tasks that waited only for who is gone need not wait any more."""
        self._refresh()
        self._looked = self._live
        outcomes: list[Outcome] = []
        for key, job in self._jobs.items():
            gone = job.awaited.difference(self._live)
            if not gone:
                continue
            job.awaited -= gone
            outcomes += self._progress(key, job, now)
            undecided = self._jobs.get(key) is job and not job.told and not job.probe
            if undecided and not self._hopeful(job):
                outcomes += self._close(key)
        return outcomes

    def _hopeful(self, job: _Job) -> bool:
        coming = (piece for worker in job.awaited for piece in job.asked.get(worker, NO_PIECES))
        return self._enough({*job.pieces, *coming})

    # ----------------------------------------------------------------- workers

    def _status(self, node: str, status: Status, now: Now) -> None:
        """Of any node: a worker's Status may come before its WorkerOffer."""
        if node not in self._sessions:
            full = len(self._sessions) >= MOST_NODES and node not in self._planned
            if full or status.state != "online":
                return
        worker = self._workers.get(node)
        if status.state == "online" and self._sessions.get(node) != status.session:
            self._sessions[node] = status.session
            if worker is not None:
                worker.faulty, worker.failures, worker.given_s = False, 0, now.monotonic_s
        self._membership.admit(node)
        self._membership.status(node, status)
        if worker is not None:
            self._changed(now)

    def _lend(self, node: str, lend: WorkerOffer, now: Now) -> None:
        if lend.plan != self.plan:
            if node in self._planned:
                self._count("wrong_plan")
            if self._workers.pop(node, None) is not None:
                self._contradicted = True  # unless it said so itself, it answers with its own plan
                self._changed(now)
            return
        holds = frozenset(lend.holds)
        worker = self._workers.get(node)
        if worker is None:
            if len(self._workers) >= MOST_WORKERS and not self._make_room(node):
                return
            self._workers[node] = _Worker(holds)
        elif worker.holds == holds:
            return  # it only answers what it was told again
        else:
            worker.holds = holds
        self._changed(now)

    def _make_room(self, node: str) -> bool:
        """Forget a lender that is of no use: who is away, else the first that never answered."""
        if node in self._planned:
            return True
        useless = None
        for name, worker in self._workers.items():
            if name in self._planned or name in self._assigned:
                continue
            if name not in self._membership.live:
                useless = name
                break
            if useless is None and not worker.answered:
                useless = name
        return useless is not None and self._workers.pop(useless, None) is not None

    def _changed(self, now: Now) -> None:
        self._stale = True
        self._assign_by(now.monotonic_s + SETTLE_S)

    def _assign_by(self, time_s: float) -> None:
        self._assign_s = time_s if self._assign_s is None else min(self._assign_s, time_s)

    def _assign(self, now: Now) -> list[Effect]:
        """Tell the workers what to hold, where that has changed or is not what they hold."""
        self._refresh()
        faulty = {name for name, worker in self._workers.items() if worker.faulty}
        own = {name: held for name, held in self._planned.items() if name not in faulty}
        vacant = (
            pieces
            for name, pieces in self._planned.items()
            if not self._live.get(name, NO_PIECES).issuperset(pieces)
        )
        there = self._online.intersection(self._workers) - faulty
        spares = sorted(name for name in there if not self._planned.get(name))
        before = self._kept(spares, now)
        trusted = [name for name in spares if self._trusted(name)]
        doubtful = [name for name in spares if not self._trusted(name)]
        doubtful.sort(key=lambda name: self._workers[name].failures)  # so that all have their turn
        stay = stand_ins(vacant, trusted, doubtful, before)
        # A message bears so many and no more.
        assigned = dict(islice({**own, **stay}.items(), MAX_PIECES))
        for name in stay.keys() & assigned.keys():
            worker = self._workers[name]
            if stay[name] != self._assigned.get(name):
                worker.given_s = now.monotonic_s
            if not worker.holds.issuperset(stay[name]):
                self._assign_by(worker.due_s)
        if assigned != self._assigned:
            self._assigned = assigned
            self._stale = True
        return self._announce(there, now)

    def _kept(self, spares: Collection[str], now: Now) -> dict[str, tuple[int, ...]]:
        """The assignment so far, without the spares that have not loaded their pieces in time."""
        kept = dict(self._assigned)
        for name in spares:
            worker, pieces = self._workers[name], kept.get(name, ())
            if pieces and worker.holds.issuperset(pieces):
                worker.failures = 0
            elif pieces and now.monotonic_s >= worker.due_s:
                worker.failures += 1
                worker.given_s = now.monotonic_s
                del kept[name]
        return kept

    def _trusted(self, spare: str) -> bool:
        return spare in self._membership.live and not self._workers[spare].failures

    def _announce(self, there: Collection[str], now: Now) -> list[Effect]:
        """The assignment, if it is new; once more, if it has not come to everybody who is there:
        the retained one may have been emptied or overwritten, and so may an offer. Workers answer
        each; what they answer leads to another only while it differs."""
        if not self.connected:
            return []
        astray = self._contradicted or any(
            self._workers[name].holds != frozenset(self._assigned.get(name, ())) for name in there
        )
        again = astray and now.monotonic_s >= self._announced_s + REPEAT_S
        effects: list[Effect] = []
        if again or self._assigned != self._announced:
            self._announced, self._announced_s = self._assigned, now.monotonic_s
            self._contradicted = False
            pieces = {worker: list(held) for worker, held in self._assigned.items()}
            message = Assignment(self.plan, pieces)
            effects.append(Publish(Topic(self.site, Kind.ASSIGN, self.group), message))
        if astray:
            self._assign_by(self._announced_s + REPEAT_S)
        return effects

    def _refresh(self) -> None:
        """Who is worth counting on: there, in time lately, not faulty, with a piece loaded."""
        if not self._stale:
            return
        self._stale = False
        self._online = self._membership.online
        trusted, live = self._membership.live, {}
        for name, worker in self._workers.items():
            if name in trusted and not worker.faulty:
                ready = worker.holds.intersection(self._assigned.get(name, ()))
                if ready:
                    live[name] = ready
        if live != self._live:
            self._live = live  # a new one: open tasks remember the old one
            self._live_pieces = NO_PIECES.union(*live.values())
            self._possible = None

    def _state(self, name: str) -> WorkerState:
        worker = self._workers.get(name, _Worker())
        state: Literal["live", "loading", "stalled", "lost", "faulty"]
        if worker.faulty:
            state = "faulty"
        elif name not in self._online:
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


def _end(key: int, job: _Job) -> list[Outcome]:
    if job.told:
        return [Ended(key, job.pieces, job.givers)]
    return [] if job.probe else [Failed(key)]


def smoothed(average: float, value: float) -> float:
    """Exponential average; the first value counts whole."""
    return value if not average else average + SMOOTHING * (value - average)
