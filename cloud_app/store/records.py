"""What goes into the store and comes out of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from cloud_app.store.statistics import Interval
from ddnn.exits.answers import choose_better
from ddnn.protocol.messages import Answer


class NotFound(LookupError):  # noqa: N818 - the word of the web for it
    """There is no such sample."""


class Record(msgspec.Struct, frozen=True):
    """The best answer to a sample so far, and when (wall clock) any answer was first given."""

    site: str
    answer: Answer
    first_answered_at_s: float
    labelled: int | None = None  # what a person says it is

    @property
    def truth(self) -> int | None:
        """A person's word, else the source's."""
        return self.answer.truth if self.labelled is None else self.labelled

    @property
    def correct(self) -> bool | None:
        """None: the truth is not known."""
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
    """Something that happened to a node: it joined, was lost, …"""

    at_s: float
    site: str
    node: str
    what: str


class ExitSummary(msgspec.Struct, frozen=True):
    """What one exit answered. `share` is of all answers; None: nothing to measure it on."""

    answered: int
    share: float
    known: int
    accuracy: float | None
    accuracy_interval: Interval | None  # 95 % of the accuracy
    latency_p50_s: float | None
    latency_p99_s: float | None


class Summary(msgspec.Struct, frozen=True):
    """How the answers are. None: nothing to measure it on.

    `accuracy` counts the `known` answers, those whose truth is known, of which a person has
    `labelled` some; `expected_accuracy` is the mean of what the answers say of themselves. Bytes
    are means per sample and device, over the devices that took part.
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
    expected_accuracy: float | None  # mean of the `expected` answers that say it
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
    """A recorded sample, with what other thresholds need to answer it again."""

    sample: int
    exit: str
    label: int
    truth: int | None  # a person's word, else the source's
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
    bundle: str = ""  # of another bundle the thresholds would mean nothing
