"""Collect the parts of a job from several senders, until they are enough or the job is due.

The exits collect scores and features of a sample from nodes; an owner of a plan collects results
of a task from workers. Both wait until the parts are enough, no sender is left, or it is due.

    phase        signal    next        outcome
    COLLECTING   ENOUGH    COMPLETE    Complete
    COLLECTING   END       CLOSED      Expired(completed=False)
    COMPLETE     END       CLOSED      Expired(completed=True): surplus parts are in it

END is whichever comes first: all expected parts are there, those that may still come cannot make
them enough, the job is due, there are more open jobs than the limit, or the owner wants no more.
A quorum may depend on more than the parts, such as on who is live: `review` asks it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from ddnn.core.quorum import Quorum
from ddnn.machines.jobs import Jobs
from ddnn.machines.states import advance

Key = TypeVar("Key")
Value = TypeVar("Value")


class Phase(Enum):
    """The states of a job."""

    COLLECTING = auto()
    COMPLETE = auto()
    CLOSED = auto()


class Signal(Enum):
    """What moves a job from one phase to the next."""

    ENOUGH = auto()
    END = auto()


TRANSITIONS: Mapping[tuple[Phase, Signal], Phase] = {
    (Phase.COLLECTING, Signal.ENOUGH): Phase.COMPLETE,
    (Phase.COLLECTING, Signal.END): Phase.CLOSED,
    (Phase.COMPLETE, Signal.END): Phase.CLOSED,
}


class Receipt(Enum):
    """What became of a part."""

    TAKEN = auto()
    REPEATED = auto()  # it is there already, from this sender or another
    LATE = auto()  # the job is closed
    UNKNOWN = auto()  # there is no such job, or it was closed long ago


@dataclass(frozen=True, slots=True)
class Complete(Generic[Key, Value]):
    """These parts are enough. missing: the senders whose parts are not all there."""

    key: Key
    parts: Mapping[Any, Value]
    senders: Mapping[Any, str]
    missing: tuple[str, ...]
    after_s: float  # since the job was opened


@dataclass(frozen=True, slots=True)
class Expired(Generic[Key, Value]):
    """Nothing more is waited for. completed: a Complete was reported before."""

    key: Key
    parts: Mapping[Any, Value]
    senders: Mapping[Any, str]
    missing: tuple[str, ...]
    completed: bool
    repeated: Mapping[Any, Mapping[str, Value]] = field(default_factory=dict)  # see by_sender

    @property
    def by_sender(self) -> dict[Any, dict[str, Value]]:
        """Every part from every sender that gave it, the first one first."""
        return {
            part: {self.senders[part]: value, **self.repeated.get(part, {})}
            for part, value in self.parts.items()
        }


Outcome = Complete[Key, Value] | Expired[Key, Value]


@dataclass(slots=True)
class _Job(Generic[Value]):
    expected: Mapping[str, frozenset[Any]]  # the parts of each sender
    awaited: set[str]  # senders whose parts may still come
    quorum: Quorum
    due_s: float
    wait_for_all: bool
    phase: Phase = Phase.COLLECTING
    parts: dict[Any, Value] = field(default_factory=dict)
    senders: dict[Any, str] = field(default_factory=dict)
    received: dict[str, set[Any]] = field(default_factory=dict)
    repeated: dict[Any, dict[str, Value]] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """The expected senders whose parts have not all come."""
        nothing: frozenset[Any] = frozenset()
        return tuple(
            sorted(
                sender
                for sender, parts in self.expected.items()
                if not parts <= self.received.get(sender, nothing)
            )
        )

    def move(self, signal: Signal) -> None:
        self.phase = advance(TRANSITIONS, self.phase, signal, "a job")


class Collector(Generic[Key, Value]):
    """Open jobs and their parts, bounded in number: a new job beyond the limit ends the oldest."""

    def __init__(self, limit: int = 1024, remember: int = 8192) -> None:
        self._jobs: Jobs[Key, _Job[Value]] = Jobs(limit, remember)

    def __len__(self) -> int:
        return len(self._jobs)

    def open(
        self,
        key: Key,
        expected: Mapping[str, frozenset[Any]],
        quorum: Quorum,
        now_s: float,
        due_s: float,
        *,
        wait_for_all_until_s: float | None = None,
    ) -> list[Outcome[Key, Value]]:
        """Start to collect. Returns the end of the oldest job where there are too many.

        expected: the parts of each sender. wait_for_all_until_s: until then all are waited for,
        and only from then on any parts that are enough will do.
        """
        first_s = due_s if wait_for_all_until_s is None else min(wait_for_all_until_s, due_s)
        job = _Job[Value](expected, set(expected), quorum, due_s, wait_for_all_until_s is not None)
        evicted = self._jobs.open(key, job, now_s, first_s)
        return [self._end(*evicted)] if evicted else []

    def receive(
        self, key: Key, sender: str, part: Any, value: Value, now_s: float
    ) -> tuple[Receipt, list[Outcome[Key, Value]]]:
        """Take a part; what became of it, and of its job."""
        job = self._jobs.get(key)
        if job is None:
            return (Receipt.LATE if self._jobs.is_closed(key) else Receipt.UNKNOWN), []
        received = job.received.setdefault(sender, set())
        is_new = part not in received
        received.add(part)
        discharged = sender in job.awaited and job.expected.get(sender, frozenset()) <= received
        if discharged:
            job.awaited.discard(sender)
        if part not in job.parts:
            job.parts[part], job.senders[part] = value, sender
            return Receipt.TAKEN, self._progress(key, job, now_s)
        if is_new:
            job.repeated.setdefault(part, {})[sender] = value
        return Receipt.REPEATED, self._progress(key, job, now_s) if discharged else []

    def withdraw(self, senders: Collection[str], now_s: float) -> list[Outcome[Key, Value]]:
        """These senders will send nothing more: what waited only for them waits no more."""
        outcomes: list[Outcome[Key, Value]] = []
        for key, job in self._jobs.items():
            gone = job.awaited.intersection(senders)
            if gone:
                job.awaited -= gone
                outcomes += self._progress(key, job, now_s)
                if self._jobs.get(key) is job and not self._can_complete(job):
                    outcomes.append(self._close(key))
        return outcomes

    def review(self, keys: Iterable[Key], now_s: float) -> list[Outcome[Key, Value]]:
        """Ask the quorum of these jobs again: it may hold without a further part."""
        outcomes: list[Outcome[Key, Value]] = []
        for key in keys:
            job = self._jobs.get(key)
            if job is not None:
                outcomes += self._progress(key, job, now_s)
        return outcomes

    def end(self, key: Key) -> None:
        """End the job, if it is open, without an outcome: its owner wants no more parts."""
        if self._jobs.get(key) is not None:
            self._close(key)

    def remove_parts(self, senders: Collection[str]) -> None:
        """Forget what these senders gave to open jobs; what others gave takes its place.

        Call `withdraw` for them next.
        """
        for job in self._jobs.values():
            for others in job.repeated.values():
                for sender in others.keys() & senders:
                    del others[sender]
            for part in [part for part, sender in job.senders.items() if sender in senders]:
                del job.parts[part]
                job.awaited.add(job.senders.pop(part))
                others = job.repeated.get(part, {})
                if others:
                    sender = job.senders[part] = next(iter(others))
                    job.parts[part] = others.pop(sender)

    def end_due(self, now_s: float) -> list[Outcome[Key, Value]]:
        """End the jobs whose time has come."""
        outcomes: list[Outcome[Key, Value]] = []
        for key in self._jobs.due(now_s):
            job = self._jobs.get(key)
            if job is None:
                continue
            if job.wait_for_all:
                job.wait_for_all = False
                outcomes += self._progress(key, job, now_s)
                if self._jobs.get(key) is not job:
                    continue
            if now_s < job.due_s:
                self._jobs.reschedule(key, job.due_s)
            else:
                outcomes.append(self._close(key))
        return outcomes

    def next_due_s(self) -> float | None:
        return self._jobs.next_due_s()

    def open_keys(self) -> list[Key]:
        """The open jobs, oldest first."""
        return [key for key, _ in self._jobs.items()]

    def opened_s(self, key: Key) -> float | None:
        """When the job was opened, be it open or closed; None where it is unknown."""
        return self._jobs.opened_s(key)

    def is_expected(self, key: Key, sender: str, part: Any) -> bool:
        """Whether the open job expects this part of this sender."""
        job = self._jobs.get(key)
        return job is not None and part in job.expected.get(sender, frozenset())

    def has_awaited(self, key: Key, sender: str) -> bool:
        """Whether the open job still waits for this sender."""
        job = self._jobs.get(key)
        return job is not None and sender in job.awaited

    def is_complete(self, key: Key) -> bool:
        job = self._jobs.get(key)
        return job is not None and job.phase is Phase.COMPLETE

    def list_awaited(self) -> set[str]:
        """All senders that some open job waits for."""
        return {sender for job in self._jobs.values() for sender in job.awaited}

    # --------------------------------------------------------------------- phases

    def _progress(self, key: Key, job: _Job[Value], now_s: float) -> list[Outcome[Key, Value]]:
        outcomes: list[Outcome[Key, Value]] = []
        waits = job.wait_for_all and job.awaited
        if job.phase is Phase.COLLECTING and not waits and job.quorum(job.parts.keys()):
            job.move(Signal.ENOUGH)
            after_s = now_s - (self._jobs.opened_s(key) or 0.0)
            parts, senders = dict(job.parts), dict(job.senders)
            outcomes.append(Complete(key, parts, senders, job.missing, after_s))
        if not job.awaited:
            outcomes.append(self._close(key))
        return outcomes

    def _can_complete(self, job: _Job[Value]) -> bool:
        """Whether those that are awaited may still make the parts enough."""
        if job.phase is not Phase.COLLECTING:
            return True
        coming = [job.expected[sender] for sender in job.awaited if sender in job.expected]
        return job.quorum(frozenset(job.parts).union(*coming))

    def _close(self, key: Key) -> Expired[Key, Value]:
        return self._end(key, self._jobs.close(key))

    def _end(self, key: Key, job: _Job[Value]) -> Expired[Key, Value]:
        completed = job.phase is Phase.COMPLETE
        job.move(Signal.END)
        return Expired(key, job.parts, job.senders, job.missing, completed, job.repeated)
