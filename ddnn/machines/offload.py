"""Sections that run on workers by one plan.

    inner machine: Compute(group) ─► head ─► task to all workers ─► enough results ─► combine
                                      │                                                 │
    inner machine: Computed  ◄─ whole section here, where the                  tail ◄───┘
                   ▲            live workers are not enough,                     │
                   │            or not in time                                   │
                   └─────────────────────────────────────────────────────────────┘
The inner machine sees no difference: the section that it asks for is computed, here or elsewhere.
Where a room makes something of fewer results than are enough, that is used once the time is over,
or at once where the section cannot be computed here; Computed then says what it lacks.
The room's Combiner says which pieces are enough and makes one result of them. `offload_node` wraps
the inner machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from ddnn.core.plan import MAX_PIECES, is_finite
from ddnn.core.section import Arrays
from ddnn.machines.collect import Complete, Expired
from ddnn.machines.gather import Gather, TaskOutcome
from ddnn.machines.workers import smooth
from ddnn.protocol.machine import Compute, Computed, Effect, Event, Now
from ddnn.protocol.messages import MAX_MISSING, ExitName, Shortfall
from ddnn.protocol.offload_state import Alternatives, OffloadState, PieceGroup

LIMIT = 256  # samples at a time
HEAD: Final = "head"
TAIL: Final = "tail"


@dataclass(frozen=True, slots=True)
class Combined:
    """What a room makes of results. outputs None: these results do not give them.

    faulty: workers whose results contradict the others'. wait: further results are needed to be
    sure; combine is called again with all that came. missing: the pieces that the outputs lack.
    accuracy: measured with exactly these pieces, by exit; empty where it was not measured.
    """

    outputs: Arrays | None
    faulty: frozenset[str] = frozenset()
    wait: bool = False
    missing: frozenset[int] = frozenset()
    accuracy: Mapping[ExitName, float] = field(default_factory=dict)


class Combiner(Protocol):
    """What is particular to a room: when results are enough, and what they give together."""

    @property
    def counts(self) -> Mapping[str, int]:
        """The room's own events, by name."""
        ...

    @property
    def title(self) -> str:
        """What is computed elsewhere."""
        ...

    @property
    def description(self) -> str:
        """What the plan promises, in a sentence."""
        ...

    @property
    def groups(self) -> Sequence[PieceGroup]:
        """The kinds of pieces."""
        ...

    @property
    def alternatives(self) -> Alternatives | None:
        """Other plans that could be in use, and their figures; None: none are known."""
        ...

    @property
    def partial(self) -> bool:
        """Whether fewer pieces than are enough give outputs that are of use."""
        ...

    def enough(self, pieces: Collection[int], /) -> bool:
        """Whether these pieces suffice."""
        ...

    def combine(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float, *, last: bool
    ) -> Combined:
        """The section's result, or the tail's inputs, from the first result of each piece. last:
        nothing more will come, and perhaps the parts are not enough. Where `partial`, they may be
        fewer without that, since live workers cannot give more."""
        ...

    def inspect(self, results: Mapping[int, Mapping[str, Arrays]], now_s: float) -> frozenset[str]:
        """Workers whose results contradict the others', among all results of a task that was
        combined before: by piece and worker, the first of each piece first."""
        ...

    def count_spare(self, holdings: Sequence[Collection[int]]) -> int:
        """How many of the live workers, which hold these pieces, may vanish, whichever they are."""
        ...


class OffloadJob(NamedTuple):
    """The token of a Compute effect of an owned section."""

    plan: str
    section: Literal["head", "tail"]
    number: int


@dataclass(slots=True)
class _Job:
    asked: Compute  # by the inner machine
    carried: Arrays = field(default_factory=dict)  # from head to tail
    shortfall: Shortfall | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a section that was asked for. here: it must be computed undivided."""

    asked: Compute
    outputs: Arrays | None
    here: bool = False
    shortfall: Shortfall | None = None  # what the outputs lack


class Offload:
    """Sections that run by one plan. Returns effects, and what has finished."""

    def __init__(self, gather: Gather, combiner: Combiner, stopwatch: Callable[[], float]) -> None:
        self.gather, self.combiner, self.plan = gather, combiner, gather.plan
        self.combined = self.combined_partly = 0
        self._stopwatch = stopwatch
        self._jobs: dict[int, _Job] = {}  # by our own number
        self._number = 0
        self._tasks: dict[int, int] = {}  # the gatherer's number -> ours
        self._gather_s = self._combine_s = 0.0
        # Of the last combination:
        self._missing: tuple[str, ...] = ()
        self._senders: Mapping[int, str] = {}
        self._accuracy: Mapping[ExitName, float] = {}

    def begin(self, asked: Compute, now: Now) -> tuple[list[Effect], list[Finished]]:
        """Start to compute a section that the inner machine asks for."""
        if not self.gather.quorum.is_useful() and not self.gather.probe_due(now):
            return [], [Finished(asked, None, here=True)]
        self._number += 1
        self._jobs[self._number] = _Job(asked)
        finished = self._compute_here(next(iter(self._jobs))) if len(self._jobs) > LIMIT else []
        if HEAD not in self.plan.owned:
            effects, more = self._scatter(self._number, asked.inputs, now)
            return effects, finished + more
        job = OffloadJob(self.plan.id, HEAD, self._number)
        return [Compute(job, self.plan.key(HEAD), asked.inputs)], finished

    def handle(self, event: Event, now: Now) -> tuple[list[Effect], list[Finished]]:
        effects, outcomes = self.gather.handle(event, now)
        finished: list[Finished] = []
        match event:
            case Computed(OffloadJob(self.plan.id, "head", number)):
                effects, finished = self._scatter(number, event.outputs, now, effects)
            case Computed(OffloadJob(self.plan.id, "tail", number)):
                finished = self._finish(number, event.outputs)
        more_effects, more = self._take_outcomes(outcomes, now)
        return effects + more_effects, finished + more

    def deadline_s(self) -> float | None:
        return self.gather.deadline_s()

    def state(self, computed_here: int, given_up: int) -> OffloadState:
        """What the page shows."""
        gather, combiner = self.gather, self.combiner
        return OffloadState(
            plan=self.plan.id,
            room=self.plan.room,
            title=combiner.title,
            description=combiner.description,
            pieces=len(self.plan.pieces),
            live_pieces=len(gather.pool.live_pieces),
            enough=gather.quorum.is_possible(),
            spare_workers=combiner.count_spare(list(gather.pool.live.values())),
            workers=gather.pool.states(),
            groups=list(combiner.groups),
            combined=self.combined,
            combined_partly=self.combined_partly,
            computed_here=computed_here,
            given_up=given_up,
            missing=list(self._missing)[:MAX_PIECES],
            gather_ms=1e3 * self._gather_s,
            combine_ms=1e3 * self._combine_s,
            counts=dict(combiner.counts),
            sources=[self._senders.get(piece, "") for piece in range(len(self.plan.pieces))],
            accuracy=dict(self._accuracy),
            alternatives=combiner.alternatives,
        )

    @property
    def gauges(self) -> dict[str, float]:
        return {
            "live_pieces": float(len(self.gather.pool.live_pieces)),
            "enough_pieces": float(self.gather.quorum.is_possible()),
            "gather_ms": 1e3 * self._gather_s,
            "task_window": round(self.gather.window.size, 1),
        }

    # ------------------------------------------------------------------ a sample

    def _scatter(
        self, number: int, arrays: Arrays | None, now: Now, effects: Sequence[Effect] = ()
    ) -> tuple[list[Effect], list[Finished]]:
        job = self._jobs.get(number)
        if job is None:
            return list(effects), []
        inputs = self.plan.inputs
        if arrays is None or not inputs.keys() <= arrays.keys() or not is_finite(arrays):
            return list(effects), self._compute_here(number)
        job.carried = {name: array for name, array in arrays.items() if name not in inputs}
        sent = {name: arrays[name] for name in inputs}
        probe = not self.gather.quorum.is_useful()  # only to learn whether the stalled are back
        if not probe and not self.gather.admit():
            return list(effects), self._compute_here(number)
        task, scattered, outcomes = self.gather.scatter(sent, now, probe=probe)
        finished: list[Finished] = []
        if probe:
            finished = self._compute_here(number)
        else:
            self._tasks[task] = number
        more_effects, more = self._take_outcomes(outcomes, now)
        return [*effects, *scattered, *more_effects], finished + more

    def _take_outcomes(
        self, outcomes: Sequence[TaskOutcome], now: Now
    ) -> tuple[list[Effect], list[Finished]]:
        effects: list[Effect] = []
        finished: list[Finished] = []
        for outcome in outcomes:
            number = self._tasks.get(outcome.key)
            if isinstance(outcome, Complete):
                self._gather_s = smooth(self._gather_s, outcome.after_s)
            if number is not None:
                more_effects, more = self._combine(number, outcome, now)
                effects += more_effects
                finished += more
            elif isinstance(outcome, Expired) and outcome.completed:
                faulty = self.combiner.inspect(outcome.by_sender, now.monotonic_s)
                self.gather.quarantine(faulty, now)
        return effects, finished

    def _combine(
        self, number: int, outcome: TaskOutcome, now: Now
    ) -> tuple[list[Effect], list[Finished]]:
        last = isinstance(outcome, Expired)
        job = self._jobs.get(number)
        if job is None:
            del self._tasks[outcome.key]
            return [], []
        started_s = self._stopwatch()
        combined = self.combiner.combine(outcome.parts, outcome.senders, now.monotonic_s, last=last)
        if combined.faulty:
            self.gather.quarantine(combined.faulty, now)
        if combined.wait and not last:
            return [], []
        del self._tasks[outcome.key]
        if combined.outputs is None or (combined.missing and self._has_time(outcome.key, now)):
            return [], self._compute_here(number)
        self._missing, self._senders = outcome.missing, outcome.senders
        self._accuracy = combined.accuracy
        job.shortfall = self._find_shortfall(combined)
        self._combine_s = smooth(self._combine_s, self._stopwatch() - started_s)
        if TAIL not in self.plan.owned:
            return [], self._finish(number, combined.outputs)
        inputs = {**combined.outputs, **job.carried}
        token = OffloadJob(self.plan.id, TAIL, number)
        return [Compute(token, self.plan.key(TAIL), inputs)], []

    def _has_time(self, task: int, now: Now) -> bool:
        """Whether the whole section may still be computed here, which is better than a part."""
        return not self.gather.quorum.use_partial and not self.gather.is_over(task, now)

    def _find_shortfall(self, combined: Combined) -> Shortfall | None:
        """What the outputs lack, by the workers that were planned to give it."""
        if not combined.missing:
            return None
        placement = self.plan.placement
        silent = sorted(
            name for name in placement if combined.missing.intersection(placement[name])
        )
        return Shortfall(silent[:MAX_MISSING], dict(combined.accuracy))

    def _finish(self, number: int, outputs: Arrays | None) -> list[Finished]:
        if outputs is None or not is_finite(outputs):
            return self._compute_here(number)
        job = self._jobs.pop(number, None)
        if job is None:
            return []
        self.combined += 1
        self.combined_partly += job.shortfall is not None
        return [Finished(job.asked, outputs, shortfall=job.shortfall)]

    def _compute_here(self, number: int) -> list[Finished]:
        """Without the workers."""
        job = self._jobs.pop(number, None)
        return [Finished(job.asked, None, here=True)] if job else []
