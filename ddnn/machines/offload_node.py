"""A machine whose section runs on workers.

A plan that is made while the machine runs is loaded next to the present one. From the moment at
which its live workers are enough, sections that are asked for begin with it; those under way end
with the plan they began with (see Versions).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ddnn.core.plan import PieceKey, Plan, find_base
from ddnn.errors import ConfigError
from ddnn.machines.gather import Gather
from ddnn.machines.offload import Combiner, Finished, Offload, OffloadJob
from ddnn.machines.replan import ReplanJob, Replanner
from ddnn.machines.versions import Versions
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
    Machine,
    Now,
    PlanRead,
    Publish,
    Received,
    Returned,
    Unload,
    find_earliest,
)
from ddnn.protocol.messages import Assignment, WorkerOffer
from ddnn.protocol.offload_state import OffloadState, WorkerState
from ddnn.protocol.topics import Kind, Topic

STATE_S = 1.0  # time between two messages of state
CHANGED = "worker %s is %s, its pieces: %s"
ENOUGH = "the live workers are enough: the section runs there"
NOT_ENOUGH = (
    "the live workers are not enough: the section runs here, or without them, until they are"
)


class OffloadNode:
    """Wraps a machine: its section `plan.group` runs on workers. Sans-IO."""

    def __init__(
        self,
        inner: Machine,
        site: str,
        plan: Plan,
        make_combiner: Callable[[Plan], Combiner],
        *,
        threshold_s: float = 0.0,
        timeout_s: float = 0.12,
        compute_here: bool = True,
        stopwatch: Callable[[], float] = lambda: 0.0,
        replanner: Replanner | None = None,
    ) -> None:
        """compute_here: whether this node can compute the whole section itself; if not, the inner
        machine learns that the section failed, unless fewer results are of use. See Gather for the
        times. stopwatch: seconds, only to report how long combining takes. replanner: None: workers
        keep their pieces."""
        self.site, self.group = site, plan.group
        self._inner, self._make_combiner = inner, make_combiner
        self._threshold_s, self._timeout_s = threshold_s, timeout_s
        self._compute_here, self._stopwatch = compute_here, stopwatch
        self._versions = Versions(plan.id, self._offload(plan))
        self._asked = 0  # sections that the inner machine has asked for: the tick of a switch
        self._of_job: dict[object, str] = {}  # the plan of each section under way
        self._loading: set[PieceKey] = set()
        self._assigned: dict[str, dict[str, list[int]]] = {}
        self._own = {"computed_here": 0, "given_up": 0, "plans_refused": 0}
        self._combined_before = 0  # by plans that are retired
        self._state_due_s = 0.0
        self._connected = False
        self._changes = WorkerChanges()
        self._strays = Strays()
        self._replanner = replanner

    def _offload(self, plan: Plan) -> Offload:
        combiner = self._make_combiner(plan)
        gather = Gather(
            self.site,
            plan,
            combiner.enough,
            threshold_s=self._threshold_s,
            timeout_s=self._timeout_s,
            use_partial=combiner.partial and not self._compute_here,
        )
        return Offload(gather, combiner, self._stopwatch)

    @property
    def current(self) -> Offload:
        """The plan that sections begin with."""
        return self._versions.live[self._versions.current]

    # --------------------------------------------------------------- as a machine

    @property
    def counts(self) -> dict[str, int]:
        combined = self._combined_before + sum(o.combined for o in self._versions.live.values())
        own, current = {**self._own, "combined": combined}, self.current
        parts = (self._inner.counts, current.gather.counts, current.combiner.counts, own)
        return {name: number for counts in parts for name, number in counts.items()}

    @property
    def gauges(self) -> dict[str, float]:
        return {**self._inner.gauges, **self.current.gauges}

    def subscriptions(self) -> list[str]:
        return sorted({*self._inner.subscriptions(), *self.current.gather.subscriptions()})

    def deadline_s(self) -> float | None:
        times = [self._inner.deadline_s(), self._state_due_s]
        times += [offload.deadline_s() for offload in self._versions.live.values()]
        return find_earliest(times)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for offload in self._versions.live.values():
            own, finished = offload.handle(event, now)
            effects += [*self._merge_assignments(own), *self._finish(finished, now)]
        match event:
            case Received(Topic(_, Kind.OFFER, node), WorkerOffer() as offer):
                effects += self._strays.check(self.current.plan, node, offer)
            case Returned(ReplanJob()) if self._replanner is not None:
                revised, logs = self._replanner.take(event, self.current.plan)
                effects += [*logs, *([] if revised is None else self._prepare(revised, now))]
            case Computed(OffloadJob()) | Received(Topic(_, Kind.RESULT)):
                pass  # there are many, and none is the inner machine's
            case Computed(job) if job in self._of_job:
                self._end(job)
                effects += self._ask(self._inner.handle(event, now), now)
            case PlanRead(_, Plan() as plan):
                effects += self._prepare(plan, now)
            case Loaded(PieceKey() as key, ok):
                effects += self._take_section(key, ok)
            case _:
                effects += self._ask(self._inner.handle(event, now), now)
        if isinstance(event, Connected | Disconnected):
            self._connected = isinstance(event, Connected)
            if self._replanner is not None:
                self._replanner.interrupt()
        effects += self._switch()
        if now.monotonic_s >= self._state_due_s:
            self._state_due_s = now.monotonic_s + STATE_S
            if self._connected:
                effects += self._observe(now)
            effects += self._report()
        return effects

    def _ask(self, effects: Sequence[Effect], now: Now) -> list[Effect]:
        """The inner machine's effects; its section begins with the current plan."""
        result: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Compute) and effect.section == self.group:
                self._asked += 1
                version, offload = self._versions.begin(self._asked)
                self._of_job[effect.job] = version
                own, finished = offload.begin(effect, now)
                result += [*own, *self._finish(finished, now)]
            else:
                result.append(effect)
        return result

    def _finish(self, finished: Sequence[Finished], now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for end in finished:
            if end.here and self._compute_here:
                self._own["computed_here"] += 1
                effects.append(end.asked)
                continue
            self._own["given_up"] += end.here
            self._end(end.asked.job)
            event = Computed(end.asked.job, end.outputs, end.shortfall)
            effects += self._ask(self._inner.handle(event, now), now)
        return effects

    def _end(self, job: object) -> None:
        version = self._of_job.pop(job, None)
        if version is not None:
            self._versions.end(version)

    # ------------------------------------------------------------ another plan

    def _prepare(self, plan: Plan, now: Now) -> list[Effect]:
        """Load a new plan's own sections; those of the present plan stay."""
        if plan.id in self._versions.live or plan.group != self.group:
            return []
        try:
            offload = self._offload(plan)
            offload.gather.pool.adopt_presence(self.current.gather.pool, now.monotonic_s)
        except ConfigError as error:
            self._own["plans_refused"] += 1
            return [Log("error", "plan %s is not used: %s", (plan.id, error))]
        displaced = self._versions.prepare(plan.id, offload)
        effects: list[Effect] = [
            Log("info", "plan %s is loaded next to plan %s", (plan.id, self._versions.current))
        ]
        if displaced is not None:
            effects += self._retire(displaced)
        if self._connected:
            own, _ = offload.handle(Connected(), now)
            effects += self._merge_assignments(own)
        self._loading = {plan.key(name) for name in plan.owned}
        if not self._loading:
            self._versions.note_loaded(plan.id)
        return [*effects, *(Load(key) for key in sorted(self._loading, key=str))]

    def _take_section(self, key: PieceKey, ok: bool) -> list[Effect]:
        if key not in self._loading:
            return []
        self._loading.discard(key)
        if not ok:
            self._own["plans_refused"] += 1
            self._loading.clear()
            log = Log("error", "plan %s is not used: section %s", (key.plan, key.piece))
            return [log, *self._retire(self._versions.discard(key.plan))]
        if not self._loading:
            self._versions.note_loaded(key.plan)
        return []

    def _switch(self) -> list[Effect]:
        """Begin with the next plan once its workers are enough; free those not used any more."""
        effects: list[Effect] = []
        following = self._versions.next
        ready = following is not None and self._versions.is_ready(following)
        if (
            following is not None
            and ready
            and self._versions.live[following].gather.quorum.is_possible()
        ):
            self._versions.switch(following, self._asked + 1)
            effects.append(Log("info", "plan %s is in use", (following,)))
        for _, offload in self._versions.free(self._asked + 1):
            effects += self._retire(offload)
        return effects

    def _retire(self, offload: Offload) -> list[Effect]:
        """Free a plan here, and at the workers by an assignment that does not name it."""
        plan = offload.plan
        self._combined_before += offload.combined
        effects: list[Effect] = [Unload(plan.key(name)) for name in plan.owned]
        if self._assigned.pop(plan.id, None) is not None and self._connected:
            effects.append(self._assignment())
        return effects

    def _merge_assignments(self, effects: Sequence[Effect]) -> list[Effect]:
        """One retained message names the pieces of all plans in use."""
        merged: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, Assignment):
                self._assigned.update(effect.message.plans)
                merged.append(self._assignment())
            else:
                merged.append(effect)
        return merged

    def _assignment(self) -> Publish:
        return Publish(Topic(self.site, Kind.ASSIGN, self.group), Assignment(dict(self._assigned)))

    # ------------------------------------------------------------------- state

    def _observe(self, now: Now) -> list[Effect]:
        """Note who is there, and plan again where workers have joined or left for good."""
        pool = self.current.gather.pool
        pool.observe(now.monotonic_s)
        plan, following = self.current.plan, self._versions.next or self._versions.current
        if self._replanner is None or find_base(following) != find_base(plan.id):
            return []
        return self._replanner.update(plan, pool, now.monotonic_s)

    def _report(self) -> list[Effect]:
        """The state for all, and in the log which workers came and went."""
        effects: list[Effect] = [
            *self._changes.take(self.states(), self.current.gather.quorum.is_possible())
        ]
        if self._connected:
            effects.append(Publish(Topic(self.site, Kind.OFFLOAD, self.group), self.state()))
        return effects

    def state(self) -> OffloadState:
        """The state of the current plan, with the samples of all."""
        return self.current.state(self._own["computed_here"], self._own["given_up"])

    def states(self) -> dict[str, WorkerState]:
        """How each worker does."""
        return self.current.gather.pool.states()


class Strays:
    """Logs, once for each, the workers of a plan that have other plans only."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def check(self, plan: Plan, node: str, offer: WorkerOffer) -> list[Effect]:
        """Take a worker's offer."""
        has_plan = find_base(plan.id) in map(find_base, offer.holds)
        if has_plan or node not in plan.placement:
            self._known.discard(node)
            return []
        if node in self._known:
            return []
        self._known.add(node)
        others = f"plan {', '.join(sorted(offer.holds))}" if offer.holds else "no plan"
        text = "%s has %s, this node plan %s: copy the plan to it"
        return [Log("warning", text, (node, others, plan.id))]


class WorkerChanges:
    """Writes into the log what has changed between two reports of the workers' states."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._enough = False

    def take(self, workers: Mapping[str, WorkerState], enough: bool) -> list[Log]:
        """enough: whether the live workers are."""
        logs: list[Log] = []
        for name, worker in workers.items():
            if self._states.get(name, "lost") != worker.state:
                pieces = ", ".join(map(str, worker.pieces)) or "none"
                logs.append(Log("info", CHANGED, (name, worker.state, pieces)))
        if self._enough and not enough:
            logs.append(Log("warning", NOT_ENOUGH))
        if enough and not self._enough:
            logs.append(Log("info", ENOUGH))
        self._states = {name: worker.state for name, worker in workers.items()}
        self._enough = enough
        return logs
