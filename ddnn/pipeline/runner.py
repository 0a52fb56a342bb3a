"""The work of one node in one term: the operations of its stage, in order, and what they pass on.

An operation runs when its inputs are there and the one before it has ended. Which operation is next
follows from what was done (see `ddnn.pipeline.schedule`), so that messages may come at any time, in
any order and repeatedly without changing any weight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from math import isfinite
from statistics import median
from typing import Literal, NamedTuple

from ddnn.core.section import Array
from ddnn.pipeline.blobs import pack_array, pack_arrays, unpack_array
from ddnn.pipeline.flows import Inbox, SentFlows
from ddnn.pipeline.schedule import choose_operation
from ddnn.pipeline.sources import Stamp
from ddnn.pipeline.stage import LastResult, Stage
from ddnn.protocol.machine import Call, Returned
from ddnn.protocol.train_messages import TrainAssignment, TrainFlow, TrainReport, TrainResult

REPORT_EVERY = 5  # batches
REPEATED = 8  # results in each report: a lost one is made good by the next
MEASURED = 9  # operations of which the median time is reported

Data = Callable[[int], tuple[Array, Array]]
"""The inputs and labels of a batch by its number; the same at every call."""

Post = tuple[str, TrainFlow | TrainReport]
"""A message and the node that it is for."""

Work = Literal["forward", "backward", "train", "copy"]


class StageJob(NamedTuple):
    """The token of a Call: an operation of a stage, and the layers it is about."""

    work: Work
    term: int
    batch: int
    start: int
    stop: int


class Passed(NamedTuple):
    """What an operation gives: blobs for other nodes, and the result of the last stage."""

    outputs: bytes | None = None
    labels: bytes | None = None
    gradient: bytes | None = None
    result: LastResult | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a node in an assignment."""

    node: str
    central: str
    term: int
    index: int
    assignment: TrainAssignment

    @property
    def count(self) -> int:
        return len(self.assignment.nodes)

    @property
    def depth(self) -> int:
        """How many batches may be in flight here: N - i, less where the delay is shorter.

        Two equally slow stages wait for each other in that schedule: what is sent between them
        adds to the time per batch. With 2 (N - i) - 1 (deep) it is hidden, at the cost of memory
        and of weights that are older.
        """
        depth = self.count - self.index
        if self.assignment.deep:
            depth = 2 * depth - 1
        return min(depth, self.assignment.delay) if self.assignment.delay else depth

    @property
    def before(self) -> str:
        return self.assignment.nodes[self.index - 1]

    @property
    def following(self) -> str:
        return self.assignment.nodes[self.index + 1]

    @property
    def is_last(self) -> bool:
        return self.index == self.count - 1

    @property
    def kept_versions(self) -> int:
        """How many weight versions the stage must keep."""
        aggregated = self.count - self.index if self.assignment.aggregate_every else 1
        return max(1, self.assignment.delay, aggregated)


class StageRunner:
    """Chooses operations, takes what arrives, and gives what is to be sent."""

    def __init__(self, place: Place, stage: Stage, data: Data | None) -> None:
        """data: of the node that holds the data, else None."""
        self.place, self.stage = place, stage
        assignment = place.assignment
        self.version = assignment.version
        self.forwards = self.backwards = assignment.version * assignment.step_batches
        self.end = assignment.batches  # lower while the pipeline is drained
        self.forward_time, self.backward_time = StageTime(), StageTime()
        self.copy_due = self.version > 0  # the layers' new owners have no copy elsewhere yet
        self.busy: Hashable | None = None
        self.rate_bytes_per_s = 0.0  # for the reports
        self._data = data
        self._inbox = Inbox()
        self._sent = SentFlows(place.node, place.term)
        self._results: list[TrainResult] = []

    @property
    def gauges(self) -> dict[str, float]:
        return {
            "train_first_layer": float(self.stage.start),
            "train_end_layer": float(self.stage.stop),
            "train_batches": float(self.backwards),
            "train_batch_ms": 1e3 * (self.forward_time.median_s + self.backward_time.median_s),
        }

    @property
    def is_idle(self) -> bool:
        """Whether no batch is in flight and nothing is at work."""
        return self.busy is None and self.forwards == self.backwards

    @property
    def stamp(self) -> Stamp:
        """The stamp of the latest weights."""
        return Stamp(self.place.term, self.version)

    @property
    def is_exact(self) -> bool:
        """Whether training can go on from the latest weights as if it had not been halted."""
        assignment = self.place.assignment
        if not assignment.consistent:
            return True
        return self.is_idle and self.backwards in (self.round_start, assignment.batches)

    def will_copy(self, stamp: Stamp) -> bool:
        """Whether a copy of this stamp may still be made."""
        later = stamp.version > self.version or (stamp == self.stamp and self.copy_due)
        return stamp.term == self.place.term and later

    @property
    def round_start(self) -> int:
        """The batch at which this round began."""
        assignment = self.place.assignment
        size, first = assignment.round_batches, assignment.version * assignment.step_batches
        return max(first, self.backwards // size * size) if size else first

    @property
    def round_end(self) -> int:
        size = self.place.assignment.round_batches
        following = (self.backwards // size + 1) * size if size else self.end
        return min(self.end, following)

    # ------------------------------------------------------------------- arrivals

    def take(self, flow: TrainFlow) -> None:
        """Take a part of what another node passes on; what is not needed any more is dropped."""
        needed_from = self.backwards if flow.way == "backward" else self.forwards
        if needed_from <= flow.batch < self.backwards + 2 * self.place.count + 2:
            self._inbox.take(flow)

    # ----------------------------------------------------------------- operations

    def next_call(self) -> Call | None:
        """The next operation, if its inputs are there and nothing is at work."""
        if self.busy is not None:
            return None
        if self.copy_due:
            return self._call("copy", self.version, self._copy_layers)
        operation = choose_operation(
            self.forwards, self.backwards, self.place.depth, max(self.round_end, self.forwards)
        )
        if operation == "forward" and self.forwards < self.end:
            return self._begin_forward(self.forwards)
        if operation == "backward":
            blob = self._inbox.get("backward", self.backwards)
            if blob is not None:
                function = partial(self._backward, self.backwards, blob)
                return self._call("backward", self.backwards, function)
        return None

    def _begin_forward(self, batch: int) -> Call | None:
        inputs, labels = (self._inbox.get(way, batch) for way in ("forward", "labels"))
        if self.place.index > 0 and (inputs is None or (self.place.is_last and labels is None)):
            return None
        work: Work = "train" if self.place.is_last else "forward"
        function = self._train if self.place.is_last else self._forward
        version = self._choose_version(batch)
        return self._call(work, batch, partial(function, batch, inputs, labels, version))

    def _call(self, work: Work, batch: int, function: Callable[[], object]) -> Call:
        stage = self.stage
        job = StageJob(work, self.place.term, batch, stage.start, stage.stop)
        self.busy = job
        return Call(job, function)

    def _choose_version(self, batch: int) -> int | None:
        """The weights for a batch; None: the latest. With a delay it is the same at all stages."""
        assignment = self.place.assignment
        if not assignment.delay:
            return None
        first = self.round_start // assignment.step_batches
        return max(first, batch // assignment.step_batches - assignment.delay + 1)

    # These run in the thread for slow work; they use nothing of the runner that changes.

    def _read_batch(
        self, batch: int, inputs: bytes | None, labels: bytes | None
    ) -> tuple[Array, Array | None]:
        if self._data is not None and self.place.index == 0:
            return self._data(batch)
        return unpack_array(inputs or b""), unpack_array(labels) if labels is not None else None

    def _forward(
        self, batch: int, inputs: bytes | None, labels: bytes | None, version: int | None
    ) -> Passed:
        arrays, truth = self._read_batch(batch, inputs, labels)
        outputs = self.stage.forward(batch, arrays, version)
        given = pack_array(truth) if self.place.index == 0 and truth is not None else None
        return Passed(outputs=pack_array(outputs), labels=given)

    def _backward(self, batch: int, gradient: bytes) -> Passed:
        passed = self.stage.backward(batch, unpack_array(gradient))
        self._end_batch(batch)
        return Passed(gradient=pack_array(passed) if passed is not None else None)

    def _train(
        self, batch: int, inputs: bytes | None, labels: bytes | None, version: int | None
    ) -> Passed:
        arrays, truth = self._read_batch(batch, inputs, labels)
        if truth is None:
            raise ValueError(f"batch {batch} has no labels")
        weight = 1 / self.place.assignment.step_batches
        result = self.stage.train_last(batch, arrays, truth, weight, version)
        self._end_batch(batch)
        gradient = result.gradient
        return Passed(
            gradient=pack_array(gradient) if gradient is not None else None, result=result
        )

    def _end_batch(self, batch: int) -> None:
        assignment = self.place.assignment
        if (batch + 1) % assignment.step_batches:
            return
        self.stage.apply()
        version = (batch + 1) // assignment.step_batches
        versions = self.place.count - self.place.index
        if assignment.consistent and assignment.round_batches:
            # Versions before the snapshot are gone after a restore, so no mean has them.
            size = assignment.round_batches
            began = batch // size * size // assignment.step_batches
            versions = min(versions, version - began + 1)
        every = assignment.aggregate_every
        if every and versions > 1 and version % every == 0:
            self.stage.aggregate(versions)

    def _copy_layers(self) -> dict[int, bytes]:
        stage = self.stage
        return {n: pack_arrays(stage.read_layer(n)) for n in range(stage.start, stage.stop)}

    # -------------------------------------------------------------------- results

    def finish(self, job: StageJob, returned: Returned) -> list[Post]:
        """Note that an operation has ended; what is to be sent. A copy's layers stay with it."""
        self.busy = None
        passed = returned.value
        if job.work == "copy":
            self.copy_due = False
            return []
        posts: list[Post] = []
        if job.work in ("forward", "train"):
            self.forwards += 1
            self._inbox.forget(job.batch, "forward", "labels")
        if job.work == "forward":
            self.forward_time.take(returned.took_s)
            if passed.outputs is not None:
                posts += self._sent.send("forward", job.batch, self.place.following, passed.outputs)
            if passed.labels is not None:
                last = self.place.assignment.nodes[-1]
                posts += self._sent.send("labels", job.batch, last, passed.labels)
            return posts
        self.backward_time.take(returned.took_s)
        self.backwards += 1
        self._inbox.forget(job.batch, "backward")
        self._sent.forget(self.backwards, self.place.depth)
        if passed.gradient is not None:
            posts += self._sent.send("backward", job.batch, self.place.before, passed.gradient)
        if passed.result is not None:
            result = passed.result
            self._results.append(make_result(job.batch, result))
            del self._results[:-REPEATED]
        self._end_step()
        if self.place.is_last or self.backwards % REPORT_EVERY == 0:
            posts.append((self.place.central, self._report()))
        return posts

    def _end_step(self) -> None:
        assignment = self.place.assignment
        if self.backwards % assignment.step_batches:
            return
        self.version += 1
        periods = (assignment.chain_every, assignment.global_every)
        is_due = any(every and self.version % every == 0 for every in periods)
        # A snapshot that is to be consistent is made while no batch is in flight.
        is_possible = not assignment.consistent or self.backwards == self.round_start
        is_over = self.backwards >= assignment.batches
        self.copy_due = is_over or (is_due and is_possible)

    def _report(self) -> TrainReport:
        return TrainReport(
            self.place.node,
            self.place.term,
            self.backwards,
            self.forward_time.median_s,
            self.backward_time.median_s,
            self.rate_bytes_per_s,
            list(self._results),
        )

    def resend(self) -> list[Post]:
        """Repeat what may have been lost: everything that is not known to have arrived."""
        posts: list[Post] = [*self._sent.resend()]
        if self._results:
            posts.append((self.place.central, self._report()))
        return posts


def make_result(batch: int, result: LastResult) -> TrainResult:
    """What a batch gave at the last layer, for the report."""
    loss = float(result.loss) if isfinite(result.loss) else None
    return TrainResult(batch, loss, int(result.correct), int(result.samples))


class StageTime:
    """The time of an operation, per batch; of the last stage's backward with the forward.

    The first one, which may compile, counts until there are others.
    """

    def __init__(self) -> None:
        self._latest_s: deque[float] = deque(maxlen=MEASURED)
        self._first = True

    def take(self, seconds: float) -> None:
        if self._first and self._latest_s:
            self._first = False
            self._latest_s.clear()
        self._latest_s.append(seconds)

    @property
    def median_s(self) -> float:
        return median(self._latest_s) if self._latest_s else 0.0
