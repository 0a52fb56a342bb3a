"""How training goes: batches done, how long they take, and when the next one is overdue."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ddnn.pipeline.periods import FAILURES_PER_S, SAMPLES, choose_timeout_s
from ddnn.pipeline.runner import StageRunner
from ddnn.pipeline.settings import Settings
from ddnn.protocol.train_messages import TrainReport, TrainResult

STRIKES = 5  # time-outs in a row, each twice as long, before the nodes are arranged again
EVENTS = 1000
RESULTS = 100_000
LATEST = 20  # batches of which the mean loss is shown


class Happening(NamedTuple):
    """An entry of the timeline: wall time, the batch then, what it is, and details."""

    wall_s: float
    batch: int
    kind: str
    text: str


class Progress:
    """Watches the central node's own stage, which every batch passes last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.done = 0  # batches, in this term
        self.failures = 0  # of nodes that were in use
        self.started_s: float | None = None  # monotonic time at which training began
        self.strikes = 0  # time-outs since the last batch
        self.results: dict[int, TrainResult] = {}
        self.timeline: deque[Happening] = deque(maxlen=EVENTS)
        self._durations_s: deque[float] = deque(maxlen=SAMPLES)
        self._since_s = 0.0
        self._first = True
        self._furthest = 0  # batches done in any term
        self._is_behind = False  # batches of the term before are computed again

    def begin(self, done: int, now_s: float) -> None:
        """A term begins."""
        self._furthest = max(self._furthest, self.done)
        self._is_behind = True
        self.done, self._since_s, self._first, self.strikes = done, now_s, True, 0

    def update(self, runner: StageRunner, now_s: float, wall_s: float) -> bool:
        """Note what is done; True where that is more than in any term before."""
        if runner.backwards == self.done:
            return False
        if self._is_behind and runner.backwards > self._furthest:
            self._is_behind = False
            self.note(wall_s, "advance", "the first batch that is new in this term")
        if not self._first:
            self._durations_s.append((now_s - self._since_s) / (runner.backwards - self.done))
        self.done, self._since_s, self.strikes = runner.backwards, now_s, 0
        # The pipeline is filled again at the start of each round.
        self._first = runner.backwards == runner.round_start
        return self.done > self._furthest

    def due_s(self, stages: int) -> float:
        """When the next batch is overdue."""
        settings = self._settings
        timeout_s = choose_timeout_s(
            self._durations_s, least_s=settings.least_timeout_s, first_s=settings.first_batch_s
        )
        factor = stages if self._first and self._durations_s else 1
        return self._since_s + timeout_s * factor * float(2**self.strikes)

    def strike(self, now_s: float) -> bool:
        """The next batch is overdue; False where that has happened too often.

        For the first batch of a term nodes may have to compile, which takes as long as it takes.
        """
        self.strikes += 1
        is_compiling = self._first and now_s - self._since_s < self._settings.first_batch_s
        return self.strikes <= STRIKES or is_compiling

    def failure_rate(self, nodes: int, now_s: float) -> float:
        """Failures of a node per second: those counted, and one that is assumed beforehand."""
        elapsed_s = now_s - self.started_s if self.started_s is not None else 0.0
        return (1 + self.failures) / (1 / FAILURES_PER_S + elapsed_s * max(nodes, 1))

    @property
    def batch_s(self) -> float:
        """The mean duration of the latest batches; 0 before any."""
        durations = self._durations_s
        return sum(durations) / len(durations) if durations else 0.0

    def summarize(self) -> tuple[float, float] | None:
        """The mean loss and the share of right answers of the latest batches."""
        latest = [self.results[batch] for batch in sorted(self.results)[-LATEST:]]
        samples = sum(result.samples for result in latest)
        losses = [result.loss for result in latest if result.loss is not None]
        if not samples or not losses:
            return None
        loss = sum(losses) / len(losses)
        return loss, sum(result.correct for result in latest) / samples

    def take_results(self, report: TrainReport) -> None:
        for result in report.results:
            self.results[result.batch] = result
        while len(self.results) > RESULTS:
            del self.results[next(iter(self.results))]

    def note(self, wall_s: float, kind: str, text: str) -> None:
        self.timeline.append(Happening(wall_s, self.done, kind, text))
