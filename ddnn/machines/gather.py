r"""Send a task to all workers of a plan and collect their results until they are enough.

    scatter -> one message to all workers -> results come in -> enough -> Complete
                                             |                      \-> ... -> Expired
                                             +-> never enough any more, or time over -> Expired
The pool knows the workers, the placement their pieces, the collector the open tasks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection

from ddnn.core.plan import Plan, is_finite
from ddnn.core.quorum import Quorum
from ddnn.core.section import Arrays
from ddnn.machines.collect import Collector, Complete, Expired, Outcome, Receipt
from ddnn.machines.live_quorum import LiveQuorum
from ddnn.machines.placement import Placement
from ddnn.machines.window import Window
from ddnn.machines.workers import WorkerPool
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
    Assignment,
    Result,
    Status,
    Task,
    WorkerOffer,
    make_tensors,
    read_tensors,
)
from ddnn.protocol.topics import Kind, Topic, presence_filters, topic_filter

LIMIT = 256  # tasks at a time; the oldest ends beyond it

TaskOutcome = Outcome[int, Arrays]


class Gather:
    """Scatters tasks of one plan to its group of workers. Sans-IO: see `handle`."""

    def __init__(
        self,
        site: str,
        plan: Plan,
        enough: Quorum,
        *,
        threshold_s: float = 0.0,
        timeout_s: float = 0.12,
        use_partial: bool = False,
    ) -> None:
        """threshold_s: how long to wait for all live workers; from then on any pieces that are
        enough suffice (Hadidi et al., EDGE 2023: the straggler threshold; 0: the first that are
        enough). timeout_s: when a task without enough results ends. use_partial: see LiveQuorum.
        """
        self.site, self.plan = site, plan
        self._threshold_s, self._timeout_s = min(threshold_s, timeout_s), timeout_s
        self.pool = WorkerPool(plan.id, plan.placement)
        self.quorum = LiveQuorum(self.pool, enough, use_partial=use_partial)
        self._placement = Placement(self.pool)
        self._collector: Collector[int, Arrays] = Collector(LIMIT)
        self._probes: set[int] = set()
        # What completes late may have waited for workers that are given up by now.
        self.window = Window(late=math.inf)
        self._number = 0
        self._live = self.pool.live  # when the open tasks were last compared with it
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        return {**self.pool.counts, **self._counts}

    def subscriptions(self) -> list[str]:
        return [
            topic_filter(Kind.RESULT, self.site),
            topic_filter(Kind.OFFER, self.site),
            *presence_filters(self.site)[:1],
        ]

    def deadline_s(self) -> float | None:
        if self._must_withdraw:
            return 0.0
        times = (self._collector.next_due_s(), self._placement.due_s)
        return find_earliest(times)

    def is_over(self, task: int, now: Now) -> bool:
        """Whether the time of a task is over."""
        opened_s = self._collector.opened_s(task)
        return opened_s is not None and now.monotonic_s >= opened_s + self._timeout_s

    def quarantine(self, nodes: Collection[str], now: Now) -> None:
        """Exclude workers whose results contradict the others' until their next session."""
        if self.pool.quarantine(nodes):
            self._placement.change(now.monotonic_s)
        self._collector.remove_parts(nodes)

    def admit(self) -> bool:
        """Whether the workers may get another task; False, which is counted, while as many wait as
        they can complete in time."""
        if self.window.is_full:
            self._counts["tasks_shed"] += 1
        return not self.window.is_full

    def scatter(
        self, inputs: Arrays, now: Now, *, probe: bool = False
    ) -> tuple[int, list[Effect], list[TaskOutcome]]:
        """Send a task to all workers. Returns its number, which is unique, also over restarts.

        probe: only to learn which workers respond; no outcome is reported. Also returns the end of
        the oldest task where there are too many.
        """
        now_s = now.monotonic_s
        # Above the numbers of a former process, whose late results must not count as ours.
        self._number = max(self._number + 1, int(now.wall_s * 1e3))
        if probe:
            self._probes.add(self._number)
        else:
            self.window.send(self._number, now_s, now_s + self._timeout_s)
        outcomes = self._collector.open(
            self._number,
            self.pool.live,
            self.quorum.make_quorum(probe=probe),
            now_s,
            now_s + self._timeout_s,
            wait_for_all_until_s=now_s + self._threshold_s if self._threshold_s else None,
        )
        task = Task(1, self.plan.id, self._number, make_tensors(inputs, self.plan.inputs))
        topic = Topic(self.site, Kind.TASK, self.plan.group)
        return self._number, [Publish(topic, task)], self._report(outcomes, now)

    def probe_due(self, now: Now) -> bool:
        """Whether stalled workers are due for a probe, while no other task is sent."""
        return self.pool.probe(now.monotonic_s)

    def handle(self, event: Event, now: Now) -> tuple[list[Effect], list[TaskOutcome]]:
        """The effects to perform, and the outcomes of tasks."""
        now_s, changed = now.monotonic_s, False
        outcomes: list[TaskOutcome] = []
        match event:
            case Received(Topic(_, Kind.RESULT, node), Result() as result):
                outcomes = self._take_result(node, result, now)
            case Received(Topic(_, Kind.STATUS, node), Status() as status):
                changed = self.pool.take_status(node, status, now_s)
            case Received(Topic(_, Kind.OFFER, node), WorkerOffer() as offer):
                changed = self.pool.take_offer(node, offer)
                if changed and self.plan.id not in offer.holds:
                    self._placement.contradict()  # it works by another plan
            case Connected():
                self._placement.connect(True, now_s)
            case Disconnected():
                self.pool.disconnect()
                self._placement.connect(False, now_s)
        if changed:
            self._placement.change(now_s)
        outcomes += self._report(self._collector.end_due(now_s), now)
        pieces = self._placement.update(now_s)
        if self._must_withdraw:
            self._live = self.pool.live
            absent = self._collector.list_awaited() - self._live.keys()
            outcomes += self._report(self._collector.withdraw(absent, now_s), now)
        if pieces is None:
            return [], outcomes
        assignment = Assignment({self.plan.id: {w: list(held) for w, held in pieces.items()}})
        return [Publish(Topic(self.site, Kind.ASSIGN, self.plan.group), assignment)], outcomes

    @property
    def _must_withdraw(self) -> bool:
        """Whether open tasks may wait for workers that are not live any more."""
        return len(self._collector) > 0 and (self.pool.changed or self._live is not self.pool.live)

    def _take_result(self, node: str, result: Result, now: Now) -> list[TaskOutcome]:
        now_s = now.monotonic_s
        worker, arrays = self.pool.workers.get(node), self._read_arrays(node, result)
        if worker is None or self.pool.is_faulty(node) or arrays is None:
            self._counts["results_refused"] += 1
            return []
        key, opened_s = result.job, self._collector.opened_s(result.job)
        completed = self._collector.is_complete(key)
        receipt, outcomes = self._collector.receive(key, node, result.piece, arrays, now_s)
        taken = receipt is Receipt.TAKEN
        if not taken:
            self._counts["results_late"] += 1
        if opened_s is not None and (taken or now_s <= opened_s + self._timeout_s):
            worker.count_result(late=completed or not taken, after_s=now_s - opened_s)
            if not self._collector.has_awaited(key, node) and self.pool.note_report(node):
                self._placement.change(now_s)
        return self._report(outcomes, now)

    def _read_arrays(self, node: str, result: Result) -> Arrays | None:
        """The arrays of a result; None where they do not fit, or were not asked of this worker."""
        piece, assigned = result.piece, self.pool.assigned.get(node, ())
        known = piece in assigned or self._collector.is_expected(result.job, node, piece)
        if result.plan != self.plan.id or not known:
            return None
        arrays = read_tensors(result.outputs, self.plan.pieces[piece].outputs)
        return arrays if arrays is not None and is_finite(arrays) else None

    def _report(self, outcomes: list[TaskOutcome], now: Now) -> list[TaskOutcome]:
        """Note the workers that missed a task; the outcomes of tasks that are not probes."""
        for outcome in outcomes:
            self._note_reply(outcome, now)
            if isinstance(outcome, Expired) and self.is_over(outcome.key, now):
                silent = [name for name in outcome.missing if name in self.pool.live]
                if silent and self.pool.note_misses(silent, now.monotonic_s):
                    self._placement.change(now.monotonic_s)
        reported = [outcome for outcome in outcomes if outcome.key not in self._probes]
        self._probes.difference_update(outcome.key for outcome in outcomes)  # they ended
        return reported

    def _note_reply(self, outcome: TaskOutcome, now: Now) -> None:
        """Note how the workers keep up. A few that are slow or silent are the business of the pool,
        which soon does without them; where none replies in time, they get too many tasks."""
        if isinstance(outcome, Complete):
            self.window.receive(outcome.key, now.monotonic_s)
        elif self.is_over(outcome.key, now) and not outcome.parts:
            self.window.miss(outcome.key, now.monotonic_s)
        else:
            self.window.drop(outcome.key)
