"""An edge that shares the heavy layer of its section among workers.

    inner machine: Compute(edge) ─► head ─► task to all workers ─► first decodable set ─► decode
                                     │                                                      │
    inner machine: Computed  ◄─ undivided section here, where                      tail ◄───┘
                   ▲             the live workers are not enough,                   │
                   │             or not in time                                     │
                   └────────────────────────────────────────────────────────────────┘
The inner machine does not know: what it asks to compute is computed, here or elsewhere. Hadidi et
al., EDGE 2023, section V (any N of N+1 answers), with codes that bear the loss of any s workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ddnn.coding.deployment import HEAD, TAIL, Deployment
from ddnn.coding.state import ROOM, count_spare_workers, describe_plan, list_groups
from ddnn.core.partition import join
from ddnn.core.section import Array, Arrays
from ddnn.errors import InconsistentAnswersError, NotDecodableError
from ddnn.machines.gather import Ended, Enough, Failed, Gather, Outcome, smoothed
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Effect,
    Event,
    Machine,
    Now,
    Publish,
    Received,
)
from ddnn.protocol.messages import OffloadState, WorkerState
from ddnn.protocol.topics import Kind, Topic

CHECK_S = 0.5  # how often surplus answers are looked at: do they agree?
WARY_S = 10.0  # so long after a contradiction that nobody could be blamed for, all are looked at
TELL_S = 1.0  # how often the state is published
LIMIT = 256  # samples at a time


@dataclass(slots=True)
class _Job:
    asked: Compute  # what the inner machine wants
    carries: Arrays = field(default_factory=dict)  # from head to tail


class SharingNode:
    """Wraps a machine: its section `deployment.section` runs on workers. Sans-IO."""

    def __init__(
        self,
        inner: Machine,
        site: str,
        plan: str,
        deployment: Deployment,
        *,
        threshold_s: float = 0.0,
        timeout_s: float = 0.12,
        here: bool = True,
        stopwatch: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """plan: its id. here: whether this node can compute the undivided section itself; if not,
        the inner machine is told that the section failed. See Gather for the times.
        stopwatch: seconds, only to tell how long decoding takes."""
        self._inner, self._deployment = inner, deployment
        self.site, self.plan, self._here = site, plan, here
        self._stopwatch = stopwatch
        self._code = deployment.make_code()
        self._gather = Gather(
            site,
            deployment.section,
            plan,
            deployment.workers,
            self._code.decodable,
            deployment.shard_shape,
            threshold_s=threshold_s,
            timeout_s=timeout_s,
        )
        self._own = {"decoded": 0, "computed_here": 0, "given_up": 0, "contradictions": 0}
        self._jobs: dict[int, _Job] = {}  # by our own number
        self._number = 0
        self._tasks: dict[int, int] = {}  # the gatherer's number -> ours
        self._gather_s = self._decode_s = 0.0
        self._missing: tuple[str, ...] = ()
        self._check_s = self._wary_until_s = self._tell_s = 0.0

    # --------------------------------------------------------------- as a machine

    @property
    def counts(self) -> dict[str, int]:
        return {**self._inner.counts, **self._gather.counts, **self._own}

    @property
    def gauges(self) -> dict[str, float]:
        shared = {
            "live_pieces": float(len(self._gather.live_pieces)),
            "decodable": float(self._gather.possible),
            "gather_ms": 1e3 * self._gather_s,
        }
        return {**self._inner.gauges, **shared}

    def subscriptions(self) -> list[str]:
        return sorted({*self._inner.subscriptions(), *self._gather.subscriptions()})

    def deadline_s(self) -> float | None:
        times = (self._inner.deadline_s(), self._gather.deadline_s(), self._tell_s)
        return min(time_s for time_s in times if time_s is not None)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects, outcomes = self._gather.handle(event, now)
        match event:
            case Computed((name, number)) if name == HEAD:
                effects += self._headed(number, event.outputs, now)
            case Computed((name, number)) if name == TAIL:
                effects += self._tailed(number, event.outputs, now)
            case Received(Topic(_, Kind.RESULT | Kind.OFFER)):
                pass  # the gatherer's; there are many
            case _:
                effects += self._ask(self._inner.handle(event, now), now)
        effects += self._outcomes(outcomes, now)
        if now.monotonic_s >= self._tell_s:
            self._tell_s = now.monotonic_s + TELL_S
            if self._gather.connected:
                effects.append(Publish(self._topic(), self._state()))
        return effects

    @property
    def decodable(self) -> bool:
        """Whether the live workers suffice."""
        return self._gather.possible

    def states(self) -> dict[str, WorkerState]:
        """How each worker does."""
        return self._gather.states()

    # ------------------------------------------------------------------ a sample

    def _ask(self, effects: list[Effect], now: Now) -> list[Effect]:
        """The inner machine's effects; of its section, head first if there are workers."""
        result: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Compute) and effect.section == self._deployment.section:
                result += self._begin(effect, now)
            else:
                result.append(effect)
        return result

    def _begin(self, asked: Compute, now: Now) -> list[Effect]:
        if not self._gather.possible and not self._gather.probe_due(now):
            return self._alone(asked, now)
        self._number += 1
        self._jobs[self._number] = _Job(asked)
        effects: list[Effect] = [Compute((HEAD, self._number), HEAD, asked.inputs)]
        if len(self._jobs) > LIMIT:
            effects += self._give_up(next(iter(self._jobs)), now)
        return effects

    def _headed(self, number: int, outputs: Arrays | None, now: Now) -> list[Effect]:
        job = self._jobs.get(number)
        if job is None:
            return []
        if outputs is None or not np.isfinite(outputs["x"]).all():
            return self._give_up(number, now)
        job.carries = {name: array for name, array in outputs.items() if name != "x"}
        probe = not self._gather.possible  # only to learn whether those who stalled are back
        task, effects, outcomes = self._gather.scatter(outputs["x"], now, probe=probe)
        if probe:
            effects += self._give_up(number, now)
        else:
            self._tasks[task] = number
        return effects + self._outcomes(outcomes, now)

    def _outcomes(self, outcomes: list[Outcome], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for outcome in outcomes:
            wary = now.monotonic_s < self._wary_until_s
            match outcome:
                case Enough(task, pieces, givers, missing, after_s):
                    self._missing = missing
                    self._gather_s = smoothed(self._gather_s, after_s)
                    if not wary:
                        effects += self._decode(self._tasks.pop(task, 0), pieces, givers, now)
                case Ended(task, pieces, givers) if task in self._tasks:  # we were wary
                    number = self._tasks.pop(task)
                    checked = len(pieces) > self._code.k
                    effects += (
                        self._decode(number, pieces, givers, now)
                        if checked
                        else self._give_up(number, now)
                    )
                case Ended(_, pieces, givers):
                    if now.monotonic_s >= self._check_s and len(pieces) > self._code.k:
                        self._check_s = now.monotonic_s + CHECK_S
                        self._solve(pieces, givers, now)
                case Failed(task):
                    effects += self._give_up(self._tasks.pop(task, 0), now)
        return effects

    def _decode(
        self, number: int, pieces: Mapping[int, Array], givers: Mapping[int, str], now: Now
    ) -> list[Effect]:
        job = self._jobs.get(number)
        if job is None:
            return []
        started_s = self._stopwatch()
        z = self._solve(pieces, givers, now)
        if z is None:
            return self._give_up(number, now)
        self._decode_s = smoothed(self._decode_s, self._stopwatch() - started_s)
        return [Compute((TAIL, number), TAIL, {"z": z, **job.carries})]

    def _solve(
        self, pieces: Mapping[int, Array], givers: Mapping[int, str], now: Now
    ) -> Array | None:
        """The layer's output. None where it cannot be told; who is at fault is left out.

        If that is not clear (a single surplus answer contradicts, but names nobody), then for a
        while no sample is decoded whose answers have not been found to agree.
        """
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
                z = join(self._code.decode(pieces), self._deployment.units)
        except InconsistentAnswersError as error:
            if error.workers:
                self._gather.distrust({givers[piece] for piece in error.workers}, now)
            else:
                self._own["contradictions"] += 1
                self._wary_until_s = now.monotonic_s + WARY_S
            return None
        except NotDecodableError:
            return None
        return z.astype(np.float32, copy=False)

    def _tailed(self, number: int, outputs: Arrays | None, now: Now) -> list[Effect]:
        if outputs is None or not np.isfinite(outputs["scores"]).all():
            return self._give_up(number, now)
        job = self._jobs.pop(number, None)
        if job is None:
            return []
        self._own["decoded"] += 1
        return self._ask(self._inner.handle(Computed(job.asked.job, outputs), now), now)

    def _give_up(self, number: int, now: Now) -> list[Effect]:
        """On this sample's workers."""
        job = self._jobs.pop(number, None)
        return self._alone(job.asked, now) if job else []

    def _alone(self, asked: Compute, now: Now) -> list[Effect]:
        """Without the workers: the undivided section here, if this node can."""
        if self._here:
            self._own["computed_here"] += 1
            return [asked]
        self._own["given_up"] += 1
        return self._ask(self._inner.handle(Computed(asked.job, None), now), now)

    # -------------------------------------------------------------------- tell

    def _topic(self) -> Topic:
        return Topic(self.site, Kind.OFFLOAD, self._deployment.section)

    def _state(self) -> OffloadState:
        deployment, own, states = self._deployment, self._own, self._gather.states()
        live, enough = len(self._gather.live_pieces), self._gather.possible
        spare_shards = self._code.s - (self._code.n - live)
        held = [len(worker.pieces) for worker in states.values() if worker.state == "live"]
        return OffloadState(
            plan=self.plan,
            room=ROOM,
            title=f"layer {deployment.layer}",
            description=describe_plan(deployment),
            pieces=self._code.n,
            live_pieces=live,
            enough=enough,
            spare_workers=count_spare_workers(spare_shards, held) if enough else 0,
            workers=states,
            groups=list_groups(deployment),
            combined=own["decoded"],
            computed_here=own["computed_here"],
            given_up=own["given_up"],
            missing=list(self._missing),
            gather_ms=1e3 * self._gather_s,
            combine_ms=1e3 * self._decode_s,
            counts={"contradictions": own["contradictions"]},
        )
