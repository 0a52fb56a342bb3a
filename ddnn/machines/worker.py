"""The worker's machine: hold the pieces it is given, compute them for every task, answer.

assigned -> load the pieces that are missing, drop those that are not wanted -> lend
task     -> compute each piece held, one after the other -> done, each at once
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

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
    Now,
    Publish,
    Received,
    Unload,
)
from ddnn.protocol.messages import Assignment, Result, Task, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic, topic_filter

LIMIT = 8  # tasks waiting; the oldest is dropped beyond it, for its gatherer has gone on
JOB = "piece/"  # the name of our Compute jobs; no node can have it: ids have no slash
RETRY_S = 5.0  # a piece whose file could not be loaded is tried again


class WorkerNode:
    """Lends computing power to the group's shared layer. Sans-IO; see ddnn.protocol.machine."""

    def __init__(
        self,
        site: str,
        node: str,
        plan: str,
        group: str,
        pieces: int,
        input_shape: Sequence[int],
        flops_per_s: float = 0.0,
        memory_bytes: int = 0,
    ) -> None:
        """plan: its id. pieces: how many the layer has. input_shape: of a task's float32 array."""
        self.site, self.node, self.plan, self.group = site, node, plan, group
        self.counts: dict[str, int] = {}
        self._pieces, self._input_shape = pieces, tuple(input_shape)
        self._capacity = (flops_per_s, memory_bytes)
        self._wanted: list[int] = []
        self._loading: set[int] = set()
        self._held: set[int] = set()
        self._retry_s: float | None = None
        self._tasks: deque[tuple[int, Arrays]] = deque()
        self._job = 0
        self._inputs: Arrays = {}  # of the task at work
        self._left: list[int] = []  # its pieces that are still to be computed
        self._computing: int | None = None  # the piece at work
        self._connected = False

    @property
    def gauges(self) -> dict[str, float]:
        return {"pieces_held": float(len(self._held)), "tasks_waiting": float(len(self._tasks))}

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.ASSIGN, self.site, self.group),
            topic_filter(Kind.TASK, self.site, self.group),
            topic_filter(Kind.STATUS, self.site, self.node),  # for Loop to contradict what is false
        ]

    def deadline_s(self) -> float | None:
        return self._retry_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.TASK, self.group), Task() as task):
                effects = self._task(task)
            case Computed((name, job)) if name == JOB:
                effects = self._computed(job, event.outputs)
            case Received(Topic(_, Kind.ASSIGN, self.group), Assignment() as assigned):
                effects = self._assigned(assigned)
            case Loaded(section, ok) if (piece := piece_of(section)) is not None:
                effects = self._loaded(piece, ok, now)
            case Connected():
                self._connected = True
                effects = self._lend()
            case Disconnected():
                self._connected = False
                self._tasks.clear()
                self._left.clear()
        if self._retry_s is not None and now.monotonic_s >= self._retry_s:
            self._retry_s = None
            effects += self._load_missing()
        return effects

    # ------------------------------------------------------------------ pieces

    def _assigned(self, assigned: Assignment) -> list[Effect]:
        if assigned.plan != self.plan:
            self._count("wrong_plan")  # another deployment than the one on this disk
            return []
        wanted = set(assigned.pieces.get(self.node, ()))
        self._wanted = sorted(piece for piece in wanted if piece < self._pieces)
        unwanted = self._held - wanted
        self._held -= unwanted
        effects: list[Effect] = [Unload(section_of(piece)) for piece in sorted(unwanted)]
        effects += self._load_missing()
        return effects + self._lend()  # always: who says it again has not heard it

    def _load_missing(self) -> list[Effect]:
        missing = [p for p in self._wanted if p not in self._held and p not in self._loading]
        self._loading.update(missing)
        return [Load(section_of(piece)) for piece in missing]

    def _loaded(self, piece: int, ok: bool, now: Now) -> list[Effect]:
        self._loading.discard(piece)
        if not ok:
            self._count("shards_failed")
            self._retry_s = now.monotonic_s + RETRY_S
            return []
        if piece not in self._wanted:  # taken away meanwhile
            return [Unload(section_of(piece))]
        self._held.add(piece)
        return self._lend()

    def _lend(self) -> list[Effect]:
        """Tell what is held."""
        if not self._connected:
            return []
        lend = WorkerOffer(self.plan, sorted(self._held), *self._capacity)
        return [Publish(Topic(self.site, Kind.OFFER, self.node), lend)]

    # ------------------------------------------------------------------- tasks

    def _task(self, task: Task) -> list[Effect]:
        if task.plan != self.plan:
            self._count("wrong_plan")
            return []
        if task.x.shape != self._input_shape or task.x.type != "float32":
            self._count("tasks_refused")
            return []
        self._tasks.append((task.job, {"x": task.x.array()}))
        if len(self._tasks) > LIMIT:
            self._tasks.popleft()
            self._count("tasks_skipped")
        return self._next()

    def _next(self) -> list[Effect]:
        """Compute the next piece of this task, or begin the task that follows."""
        if self._computing is not None:
            return []
        while self._left or self._tasks:
            if not self._left:
                self._job, self._inputs = self._tasks.popleft()
                self._left = sorted(self._held, reverse=True)
            elif (piece := self._left.pop()) in self._held:  # not taken away meanwhile
                self._computing = piece
                return [Compute((JOB, self._job), section_of(piece), self._inputs, lent=True)]
        return []

    def _computed(self, job: int, outputs: Arrays | None) -> list[Effect]:
        piece, self._computing = self._computing, None
        effects: list[Effect] = []
        if outputs is None or not np.isfinite(outputs["z"]).all():
            self._count("section_failed")
        elif self._connected and piece is not None:
            done = Result(1, self.plan, job, piece, Tensor.of(outputs["z"]))
            effects.append(Publish(Topic(self.site, Kind.RESULT, self.node), done))
            self._count("pieces_done")
        return [*effects, *self._next()]

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def section_of(piece: int) -> str:
    """The name of a piece's section."""
    return f"{JOB}{piece}"


def piece_of(section: str) -> int | None:
    """The piece that a section is; None where it is something else."""
    number = section.removeprefix(JOB)
    return int(number) if number != section and number.isdecimal() else None
