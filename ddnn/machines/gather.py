r"""Send a task to all workers of a plan and collect their results until they are enough.

    scatter -> one message to all workers -> results come in -> enough -> Complete
                                             |                      \-> ... -> Expired
                                             +-> never enough any more, or time over -> Expired
The pool says who works, the placement who holds what, the collector what is enough.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ddnn.core.plan import Plan, is_finite
from ddnn.core.quorum import Quorum
from ddnn.core.section import Arrays
from ddnn.machines.collect import Collector, Expired, Outcome, Receipt
from ddnn.machines.placement import Placement
from ddnn.machines.workers import WorkerPool
from ddnn.protocol.machine import Connected, Disconnected, Effect, Event, Now, Publish, Received
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


def never(parts: Collection[Any]) -> bool:
    """The quorum of a task that only asks who answers."""
    return False


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
    ) -> None:
        """threshold_s: all live workers are waited for so long; then any pieces that are enough
        will do (Hadidi et al., EDGE 2023: the straggler threshold; 0: the first that are enough).
        timeout_s: then a task that has not enough results ends.
        """
        self.site, self.plan = site, plan
        self.connected = False
        self._enough = enough
        self._threshold_s, self._timeout_s = min(threshold_s, timeout_s), timeout_s
        self.pool = WorkerPool(plan.id, plan.placement)
        self._placement = Placement(self.pool)
        self._collector: Collector[int, Arrays] = Collector(LIMIT)
        self._probes: set[int] = set()
        self._number = 0
        self._known = self.pool.live  # what the open tasks know of
        self._counts: dict[str, int] = {}
        self._possible: tuple[frozenset[int], bool] | None = None

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
        if self._moved:
            return 0.0
        times = (self._collector.next_due_s(), self._placement.due_s)
        return min((time_s for time_s in times if time_s is not None), default=None)

    @property
    def possible(self) -> bool:
        """Whether the live workers are enough."""
        live = self.pool.live_pieces
        if self._possible is None or self._possible[0] is not live:
            self._possible = live, self._enough(live)
        return self._possible[1]

    def quarantine(self, nodes: Collection[str], now: Now) -> None:
        """Their results contradict the others': count on them no more in this session."""
        if self.pool.quarantine(nodes):
            self._placement.change(now.monotonic_s)
        self._collector.remove_parts(nodes)

    # ------------------------------------------------------------------ a task

    def scatter(
        self, inputs: Arrays, now: Now, *, probe: bool = False
    ) -> tuple[int, list[Effect], list[TaskOutcome]]:
        """Send a task to all workers; its number, which no other task ever had.

        probe: only to learn who answers; no outcome is reported. Also returns the end of an older
        task where there are too many.
        """
        now_s = now.monotonic_s
        # Numbers go on over restarts: results for a former process are not taken for ours.
        self._number = max(self._number + 1, int(now.wall_s * 1e3))
        if probe:
            self._probes.add(self._number)
        outcomes = self._collector.open(
            self._number,
            self.pool.live,
            never if probe else self._enough,
            now_s,
            now_s + self._timeout_s,
            wait_for_all_until_s=now_s + self._threshold_s if self._threshold_s else None,
        )
        task = Task(1, self.plan.id, self._number, make_tensors(inputs, self.plan.inputs))
        topic = Topic(self.site, Kind.TASK, self.plan.group)
        return self._number, [Publish(topic, task)], self._report(outcomes, now)

    def probe_due(self, now: Now) -> bool:
        """Whether to ask those who stalled once more, while nothing else is asked."""
        return self.pool.probe(now.monotonic_s)

    def handle(self, event: Event, now: Now) -> tuple[list[Effect], list[TaskOutcome]]:
        """Effects to perform, and what has become of tasks."""
        now_s, changed = now.monotonic_s, False
        outcomes: list[TaskOutcome] = []
        match event:
            case Received(Topic(_, Kind.RESULT, node), Result() as result):
                outcomes = self._result(node, result, now)
            case Received(Topic(_, Kind.STATUS, node), Status() as status):
                changed = self.pool.take_status(node, status, now_s)
            case Received(Topic(_, Kind.OFFER, node), WorkerOffer() as offer):
                changed = self.pool.take_offer(node, offer)
                if changed and self.plan.id not in offer.holds:
                    self._placement.contradict()  # it works by a plan that is not ours
            case Connected() | Disconnected():
                self.connected = isinstance(event, Connected)
                if not self.connected:
                    self.pool.disconnect()
                self._placement.connect(self.connected, now_s)
        if changed:
            self._placement.change(now_s)
        outcomes += self._report(self._collector.end_due(now_s), now)
        pieces = self._placement.update(now_s)
        if self._moved:
            outcomes += self._withdraw(now)
        if pieces is None:
            return [], outcomes
        assignment = Assignment({self.plan.id: {w: list(held) for w, held in pieces.items()}})
        return [Publish(Topic(self.site, Kind.ASSIGN, self.plan.group), assignment)], outcomes

    def _result(self, node: str, result: Result, now: Now) -> list[TaskOutcome]:
        worker, key, piece = self.pool.workers.get(node), result.job, result.piece
        known = piece in self.pool.assigned.get(node, ()) or self._collector.is_expected(
            key, node, piece
        )
        arrays = None
        if worker is not None and not worker.faulty and known and result.plan == self.plan.id:
            arrays = read_tensors(result.outputs, self.plan.pieces[piece].outputs)
        if worker is None or arrays is None or not is_finite(arrays):
            self._count("results_refused")
            return []
        now_s, opened_s = now.monotonic_s, self._collector.opened_s(key)
        completed = self._collector.is_complete(key)
        receipt, outcomes = self._collector.receive(key, node, piece, arrays, now_s)
        in_time = opened_s is not None and now_s <= opened_s + self._timeout_s
        if receipt is not Receipt.TAKEN:
            self._count("results_late")
        if opened_s is not None and (receipt is Receipt.TAKEN or in_time):
            late = completed or receipt is not Receipt.TAKEN
            worker.count_result(late=late, after_s=now_s - opened_s)
            if not self._collector.has_awaited(key, node) and self.pool.reported(node):
                self._placement.change(now_s)
        return self._report(outcomes, now)

    def _report(self, outcomes: list[TaskOutcome], now: Now) -> list[TaskOutcome]:
        """The outcomes of tasks that were no probes; suspects are noted on the way."""
        reported: list[TaskOutcome] = []
        for outcome in outcomes:
            if isinstance(outcome, Expired):
                opened_s = self._collector.opened_s(outcome.key)
                over = opened_s is not None and now.monotonic_s >= opened_s + self._timeout_s
                silent = [name for name in outcome.missing if name in self.pool.live]
                if over and silent and self.pool.missed(silent, now.monotonic_s):
                    self._placement.change(now.monotonic_s)
            if outcome.key not in self._probes:
                reported.append(outcome)
            elif isinstance(outcome, Expired):
                self._probes.discard(outcome.key)
        return reported

    @property
    def _moved(self) -> bool:
        """Whether somebody came or went that open tasks may wait for."""
        return len(self._collector) > 0 and (self.pool.changed or self._known is not self.pool.live)

    def _withdraw(self, now: Now) -> list[TaskOutcome]:
        """Tasks that waited only for those who are gone need not wait any more."""
        self._known = self.pool.live
        gone = self._collector.awaited() - self._known.keys()
        return self._report(self._collector.withdraw(gone, now.monotonic_s), now)

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1
