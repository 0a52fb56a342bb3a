"""The worker's machine: hold the assigned pieces of the plans in use, compute them, report.

assigned -> load the pieces that are missing, drop those no longer assigned -> offer
task     -> compute each piece of its plan that is held, one after the other -> a result for each

A plan that an assignment names and that is not known is read from disk; a plan that it does not
name any more is retired, with its pieces. A worker that started without a plan hears the
assignments of all owners, and works for the first whose plan comes to its disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import PieceKey, Plan, fits
from ddnn.core.section import Arrays
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Load,
    Loaded,
    Log,
    Now,
    PlanRead,
    Publish,
    ReadPlan,
    Received,
    Subscribe,
    Unload,
)
from ddnn.protocol.messages import (
    MAX_PLANS,
    Assignment,
    Result,
    Task,
    WorkerOffer,
    make_tensors,
    read_tensors,
)
from ddnn.protocol.topics import Kind, Topic, topic_filter

LIMIT = 8  # tasks waiting; the oldest is dropped beyond it, for its gatherer has gone on
MAX_OWNERS = 64  # whose assignments a worker without a plan remembers
RETRY_S = 5.0  # a file that could not be loaded is tried again


class PieceJob(NamedTuple):
    """The token of a Compute effect: a piece of a task."""

    key: PieceKey
    task: int


@dataclass(slots=True)
class _Holding:
    """What this worker has of one plan."""

    plan: Plan
    wanted: list[int] = field(default_factory=list)
    loading: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)


class WorkerNode:
    """Computes pieces for the group of its plans. Sans-IO; see ddnn.protocol.machine."""

    def __init__(
        self, site: str, node: str, plan: Plan | None, profile: DeviceProfile | None
    ) -> None:
        """plan: the one on disk; None: it offers itself, and waits for one."""
        self.site, self.node = site, node
        self.group = "" if plan is None else plan.group  # the owner of the plans
        self.counts: dict[str, int] = {}
        self._profile = profile
        self._holdings: dict[str, _Holding] = {} if plan is None else {plan.id: _Holding(plan)}
        self._assigned: Mapping[str, Mapping[str, list[int]]] = {}
        self._heard: dict[str, Mapping[str, Mapping[str, list[int]]]] = {}  # by owner, until one is
        self._reading: set[str] = set()
        self._unknown: set[str] = set()  # assigned plans that could not be read
        self._retry_s: float | None = None
        self._tasks: deque[tuple[_Holding, int, Arrays]] = deque()
        self._task: tuple[_Holding, int, Arrays] | None = None  # at work
        self._left: list[int] = []  # its pieces that are still to be computed
        self._computing: PieceJob | None = None
        self._connected = False

    @property
    def gauges(self) -> dict[str, float]:
        held = sum(len(holding.held) for holding in self._holdings.values())
        return {"pieces_held": float(held), "tasks_waiting": float(len(self._tasks))}

    def subscriptions(self) -> list[str]:
        tasks = [topic_filter(Kind.TASK, self.site, self.group)] if self.group else []
        return [
            topic_filter(Kind.ASSIGN, self.site, self.group or "+"),
            *tasks,
            topic_filter(Kind.STATUS, self.site, self.node),  # for Loop to correct a late Will
        ]

    def deadline_s(self) -> float | None:
        return self._retry_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.TASK, self.group), Task() as task):
                effects = self._receive_task(task)
            case Computed(PieceJob() as job) if job == self._computing:
                effects = self._report(job, event.outputs)
            case Received(Topic(_, Kind.ASSIGN, self.group), Assignment(plans)):
                self._assigned = plans
                self._unknown &= plans.keys()
                effects = self._follow_assignment()
            case Received(Topic(_, Kind.ASSIGN, owner), Assignment(plans)) if not self.group:
                effects = self._hear_assignment(owner, plans)
            case PlanRead(plan_id, plan):
                effects = self._take_plan(plan_id, plan, now)
            case Loaded(PieceKey(plan_id, int() as piece), ok) if plan_id in self._holdings:
                effects = self._take_piece(self._holdings[plan_id], piece, ok, now)
            case Loaded(PieceKey() as key, True):
                effects = [Unload(key)]  # its plan was retired meanwhile
            case Connected():
                self._connected = True
                effects = self._offer()
            case Disconnected():
                self._connected = False
                self._tasks.clear()
                self._left.clear()
        if self._retry_s is not None and now.monotonic_s >= self._retry_s:
            self._retry_s = None
            effects += self._load_missing()
        return effects

    # ------------------------------------------------------------------ pieces

    def _hear_assignment(
        self, owner: str, plans: Mapping[str, Mapping[str, list[int]]]
    ) -> list[Effect]:
        """Look for the plans of an owner, as long as this worker works for none."""
        if owner in self._heard or len(self._heard) < MAX_OWNERS:
            self._heard[owner] = plans
        self._assigned = {
            plan_id: pieces for of in self._heard.values() for plan_id, pieces in of.items()
        }
        self._unknown &= self._assigned.keys()
        return self._load_missing()

    def _join_group(self, group: str) -> list[Effect]:
        """Work for the owner of a plan that came to this disk."""
        self.group, self._assigned = group, self._heard[group]
        self._heard.clear()
        return [
            Subscribe([topic_filter(Kind.TASK, self.site, group)]),
            Log("info", "a plan of %s is on this node: it lends from now on", (group,)),
        ]

    def _follow_assignment(self) -> list[Effect]:
        effects: list[Effect] = []
        followed = self._assigned.keys() & self._holdings.keys()
        if followed:  # else keep what is known to be good
            for plan_id in self._holdings.keys() - self._assigned.keys():
                effects += self._retire(self._holdings.pop(plan_id))
        for plan_id, pieces in self._assigned.items():
            holding = self._holdings.get(plan_id)
            if holding is None:
                continue
            wanted = set(pieces.get(self.node, ()))
            holding.wanted = sorted(p for p in wanted if p < len(holding.plan.pieces))
            effects += [Unload(holding.plan.key(p)) for p in sorted(holding.held - wanted)]
            holding.held &= wanted
        effects += self._load_missing()
        if followed:  # each time: an owner that repeats the assignment has not received the offer
            effects += self._offer()
        return effects

    def _retire(self, holding: _Holding) -> list[Effect]:
        return [Unload(holding.plan.key(piece)) for piece in sorted(holding.held)]

    def _load_missing(self) -> list[Effect]:
        effects: list[Effect] = []
        for plan_id in self._assigned.keys() - self._holdings.keys() - self._reading:
            self._reading.add(plan_id)
            effects.append(ReadPlan(plan_id))
        for holding in self._holdings.values():
            ready = holding.held | holding.loading
            missing = [piece for piece in holding.wanted if piece not in ready]
            holding.loading.update(missing)
            effects += [Load(holding.plan.key(piece)) for piece in missing]
        return effects

    def _take_plan(self, plan_id: str, plan: Plan | None, now: Now) -> list[Effect]:
        self._reading.discard(plan_id)
        if plan_id not in self._assigned or plan_id in self._holdings:
            return []
        known = plan is not None and plan.group in ({self.group} if self.group else self._heard)
        if plan is None or not known or len(self._holdings) >= MAX_PLANS:
            self._count("wrong_plan")  # another plan than the one on this disk
            self._retry_s = now.monotonic_s + RETRY_S
            if plan_id in self._unknown:
                return []
            self._unknown.add(plan_id)
            text = "%s has plan %s, which is not on this node: copy the plan's directory here"
            return [Log("warning", text, (self._find_owner(plan_id), plan_id))]
        self._unknown.discard(plan_id)
        effects = [] if self.group else self._join_group(plan.group)
        self._holdings[plan_id] = _Holding(plan)
        return [*effects, *self._follow_assignment()]

    def _find_owner(self, plan_id: str) -> str:
        """Who assigned the pieces of a plan."""
        owners = [owner for owner, plans in self._heard.items() if plan_id in plans]
        return self.group or ", ".join(owners)

    def _take_piece(self, holding: _Holding, piece: int, ok: bool, now: Now) -> list[Effect]:
        holding.loading.discard(piece)
        if not ok:
            self._count("pieces_failed")
            self._retry_s = now.monotonic_s + RETRY_S
            return []
        if piece not in holding.wanted:  # no longer assigned
            return [Unload(holding.plan.key(piece))]
        holding.held.add(piece)
        return self._offer()

    def _offer(self) -> list[Effect]:
        if not self._connected:
            return []
        holds = {plan_id: sorted(holding.held) for plan_id, holding in self._holdings.items()}
        offer = WorkerOffer(holds, self._profile)
        return [Publish(Topic(self.site, Kind.OFFER, self.node), offer)]

    # ------------------------------------------------------------------- tasks

    def _receive_task(self, task: Task) -> list[Effect]:
        holding = self._holdings.get(task.plan)
        if holding is None:
            self._count("wrong_plan")
            return []
        inputs = read_tensors(task.inputs, holding.plan.inputs)
        if inputs is None:
            self._count("tasks_refused")
            return []
        self._tasks.append((holding, task.job, inputs))
        if len(self._tasks) > LIMIT:
            self._tasks.popleft()
            self._count("tasks_skipped")
        return self._next()

    def _next(self) -> list[Effect]:
        """Compute the next piece of this task, or begin the task that follows."""
        if self._computing is not None:
            return []
        while self._left or self._tasks:
            if not self._left or self._task is None:
                self._task = self._tasks.popleft()
                self._left = sorted(self._task[0].held, reverse=True)
                continue
            holding, number, inputs = self._task
            piece = self._left.pop()
            if piece in holding.held:  # not taken away meanwhile
                self._computing = PieceJob(holding.plan.key(piece), number)
                return [Compute(self._computing, self._computing.key, inputs, lent=True)]
        return []

    def _report(self, job: PieceJob, outputs: Arrays | None) -> list[Effect]:
        self._computing = None
        effects: list[Effect] = []
        holding, piece = self._holdings.get(job.key.plan), job.key.piece
        if holding is not None and self._connected and isinstance(piece, int):
            specs = holding.plan.pieces[piece].outputs
            if outputs is None or not fits(outputs, specs):
                self._count("section_failed")
            else:
                tensors = make_tensors(outputs, specs)
                result = Result(1, job.key.plan, job.task, piece, tensors)
                effects.append(Publish(Topic(self.site, Kind.RESULT, self.node), result))
                self._count("pieces_done")
        return [*effects, *self._next()]

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
