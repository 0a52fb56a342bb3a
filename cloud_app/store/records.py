"""The values that the store takes and returns."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ddnn.exits.answers import choose_better
from ddnn.exits.intervals import Interval
from ddnn.protocol.messages import Answer


class NotFound(LookupError):  # noqa: N818 - as in HTTP
    """The store has no such sample."""


class Record(msgspec.Struct, frozen=True):
    """The best answer to a sample so far, and the wall time of the first answer."""

    site: str
    answer: Answer
    first_answered_at_s: float
    labelled: int | None = None  # the class that a person gives it

    @property
    def truth(self) -> int | None:
        """The class that a person gives the sample, else that of the source."""
        return self.answer.truth if self.labelled is None else self.labelled

    @property
    def correct(self) -> bool | None:
        """Whether the answer is the truth; None where the truth is unknown."""
        truth = self.truth
        return None if truth is None or truth < 0 else self.answer.label == truth

    def merge(self, other: Record) -> Record:
        return Record(
            self.site,
            choose_better(self.answer, other.answer),
            min(self.first_answered_at_s, other.first_answered_at_s),
            other.labelled if self.labelled is None else self.labelled,
        )


class NodeEvent(msgspec.Struct, frozen=True):
    """An event of a node: it joined, was lost, …"""

    at_s: float
    site: str
    node: str
    what: str


class ExitSummary(msgspec.Struct, frozen=True):
    """The answers of one exit. `share` is of all answers; None: no answers to measure it on."""

    answered: int
    share: float
    known: int
    accuracy: float | None
    accuracy_interval: Interval | None  # 95 % of the accuracy
    latency_p50_s: float | None
    latency_p99_s: float | None


class Summary(msgspec.Struct, frozen=True):
    """The answers in numbers. None: no answers to measure it on.

    `accuracy` is over the `known` answers, those whose truth is known; persons have given the truth
    of the `labelled` ones. `expected_accuracy` is the mean over the answers that state one. Bytes
    are means per sample and device, over the devices that took part. Over the newest answers,
    `recall` is by class, as text, the share of its samples that were answered with it, and
    `majority` the accuracy of always naming the most frequent class.
    """

    answered: int
    known: int
    labelled: int
    accuracy: float | None
    accuracy_interval: Interval | None  # 95 %
    expected_accuracy: float | None
    late: int
    quality: dict[str, int]
    exits: dict[str, ExitSummary]
    payload_bytes: float | None
    wire_bytes: float | None
    recall: dict[str, float] = {}
    majority: float | None = None


class Bucket(msgspec.Struct, frozen=True):
    """The samples first answered from `start_s` on, for one step of a series.

    Bytes are sums; over `members`, the devices that took part, they give the mean per device.
    """

    start_s: int
    exits: dict[str, int]
    degraded: int
    late: int
    known: int
    correct: int
    expected: int
    expected_accuracy: float | None  # mean over the `expected` answers that state one
    members: int
    payload_bytes: float
    wire_bytes: float
    p50_s: dict[str, float | None]
    p99_s: dict[str, float | None]


class Histogram(NamedTuple):
    """Latencies of an exit: counts per bucket of LATENCY_BOUNDS_S (not cumulated), and sums."""

    buckets: tuple[int, ...]
    samples: int
    sum_s: float


class Replay(msgspec.Struct, frozen=True):
    """A recorded sample, with the values by which other thresholds answer it again."""

    sample: int
    exit: str
    label: int
    truth: int | None  # given by a person, else by the source
    exit_trace: list[tuple[str, int, float]]  # exit, label, normalized entropy; in order
    members: int
    payload_bytes: int


class Change(msgspec.Struct, frozen=True):
    """A change of a site's thresholds by a person."""

    at_s: float
    site: str
    by: str
    thresholds: dict[str, float]
    before: dict[str, float]
    revision: int
    what: Literal["applied", "reverted"]
    bundle: str = ""  # thresholds apply to the exits of one bundle only
