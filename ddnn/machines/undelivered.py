"""The answers that no store has confirmed: which wait, which are on their way, in what batches.

    state      signal    next
    WAITING    SEND      FLYING     the link has room
    FLYING     LOSE      WAITING    the connection broke, or no confirmation came in time
    WAITING    CONFIRM   DONE       what seemed to be lost was only late
    FLYING     CONFIRM   DONE
    WAITING    GIVE_UP   DONE       there are more than the limit, or the store refuses this one
    FLYING     GIVE_UP   DONE

A batch that is not confirmed, while what was sent later is, was refused or lost. Its answers become
suspects, which are sent in smaller and smaller batches: an answer that no store takes is alone in
the end, and does not keep the others from being delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from ddnn.machines.flow import TIMEOUT_S, Flow, Sent
from ddnn.machines.states import advance
from ddnn.protocol.messages import MAX_BATCH, Answer

LIMIT = 100_000  # answers; beyond it, or beyond LIMIT_BYTES, the oldest are given up
LIMIT_BYTES = 64 << 20
MAX_BATCH_BYTES = 60_000  # of one message: links and brokers take at least 64 KiB
BATCHES = 4  # that share the window
ALONE = 4  # refusals after which an answer travels alone: 256, 64, 16, 4, 1 in a batch
GIVE_UP_AFTER = 8  # further refusals ...
GIVE_UP_AFTER_S = 60.0  # ... in at least this time: a store that has no room refuses, too


class State(Enum):
    """The states of an answer."""

    WAITING = auto()
    FLYING = auto()
    DONE = auto()


class Signal(Enum):
    """What moves an answer from one state to the next."""

    SEND = auto()
    LOSE = auto()
    CONFIRM = auto()
    GIVE_UP = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.WAITING, Signal.SEND): State.FLYING,
    (State.FLYING, Signal.LOSE): State.WAITING,
    (State.WAITING, Signal.CONFIRM): State.DONE,
    (State.FLYING, Signal.CONFIRM): State.DONE,
    (State.WAITING, Signal.GIVE_UP): State.DONE,
    (State.FLYING, Signal.GIVE_UP): State.DONE,
}


@dataclass(slots=True)
class Entry:
    """An answer that is not confirmed."""

    answer: Answer
    size_bytes: int
    state: State = State.WAITING
    sent: Sent | None = None  # the last time
    batched: bool = False  # whether it was in a batch
    refusals: int = 0  # of its batches
    refused_at_s: float = 0.0  # the first time

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, f"answer {self.answer.sample}")


class Undelivered:
    """Times are monotonic."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}  # in order of age
        self._bytes = 0
        self._waiting: dict[int, None] = {}  # never refused
        self._suspects: dict[int, None] = {}
        self._suspects_first = False
        self._flying: dict[int, None] = {}  # in order of sending
        self._flow = Flow()
        self._confirmed_s = 0.0  # the last confirmation

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Answer]:
        return (entry.answer for entry in self._entries.values())

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting or self._suspects)

    def add(self, answer: Answer, size_bytes: int) -> list[int]:
        """Add an answer, in the place of an older one to its sample.

        Returns the samples that are given up, because there are too many.
        """
        if answer.sample in self._entries:
            self._remove(answer.sample, Signal.GIVE_UP)
        self._entries[answer.sample] = Entry(answer, size_bytes)
        self._waiting[answer.sample] = None
        self._bytes += size_bytes
        given_up = []
        while len(self._entries) > LIMIT or (self._bytes > LIMIT_BYTES and len(self._entries) > 1):
            given_up.append(next(iter(self._entries)))
            self._remove(given_up[-1], Signal.GIVE_UP)
        return given_up

    def send(self, sample: int, now_s: float) -> None:
        """Note that an answer is sent, alone or in a batch."""
        entry = self._entries[sample]
        entry.move(Signal.SEND)
        entry.sent = self._flow.send(entry.size_bytes, now_s, entry.sent)
        self._waiting.pop(sample, None)
        self._suspects.pop(sample, None)
        self._flying[sample] = None

    def confirm(self, samples: Iterable[int], now_s: float) -> list[int]:
        """Remove these answers; returns those that were there."""
        known = []
        for sample in samples:
            entry = self._entries.get(sample)
            if entry is None:
                continue
            if entry.sent is not None:
                was_lost = entry.state is not State.FLYING
                self._flow.confirm(entry.sent, now_s, was_lost=was_lost)
                self._confirmed_s = now_s
                entry.sent = None
            self._remove(sample, Signal.CONFIRM)
            known.append(sample)
        return known

    def disconnect(self) -> None:
        """All that is on its way is lost, and the next connection may have another rate."""
        self._lose(list(self._flying))
        self._flow.reset()

    def lose_sent_until(self, time_s: float) -> None:
        """What was sent until then is lost."""
        self._lose(self._list_sent_until(time_s))

    def take_batch(self, now_s: float) -> list[Answer]:
        """The answers to send now, at least one if there is room; empty: there is none."""
        share_bytes = self._flow.window_bytes // BATCHES
        # Not less at a time: each confirmation would make room for a batch as small as its own.
        has_room = self._flow.room_bytes >= share_bytes or not self._flow.in_flight_bytes
        if not (has_room and self.has_waiting):
            return []
        first, second = self._waiting, self._suspects
        if self._suspects_first:
            first, second = second, first
        group = first or second
        refusals = self._entries[next(iter(group))].refusals
        limit = max(MAX_BATCH >> 2 * refusals, 1)
        room_bytes = min(share_bytes, MAX_BATCH_BYTES)
        batch: list[Entry] = []
        for sample in group:
            entry = self._entries[sample]
            room_bytes -= entry.size_bytes
            if batch and (room_bytes < 0 or len(batch) == limit or entry.refusals != refusals):
                break
            batch.append(entry)
        for entry in batch:
            entry.batched = True
            self.send(entry.answer.sample, now_s)
        return [entry.answer for entry in batch]

    # ---------------------------------------------------------------- what fails

    def find_timeout_s(self) -> float | None:
        """When what is on its way is taken to be lost, unless something is confirmed."""
        if not self._flying:
            return None
        oldest = self._entries[next(iter(self._flying))].sent
        began_s = max(oldest.at_s if oldest else 0.0, self._confirmed_s)
        return began_s + self._flow.timeout_s

    def find_refused(self, now_s: float) -> list[int]:
        """Part the batches that are not confirmed although what was sent later is.

        Returns the samples that are given up: the store refused each of them many times.
        """
        given_up, lost = [], []
        for sample in self._list_sent_until(self._flow.newest_confirmed_s - TIMEOUT_S):
            entry = self._entries[sample]
            if not entry.batched:  # it was published once, without a receipt
                lost.append(sample)
                continue
            self._suspect(entry, now_s)
            lasts_s = now_s - entry.refused_at_s
            if entry.refusals >= ALONE + GIVE_UP_AFTER and lasts_s >= GIVE_UP_AFTER_S:
                self._remove(sample, Signal.GIVE_UP)
                given_up.append(sample)
        self._lose(lost)
        return given_up

    def stall(self, now_s: float) -> None:
        """Nothing is confirmed: the link is broken, or the store takes nothing of this.

        A batch may hold an answer that no store takes: it is parted here, too. Suspects and others
        take turns, so that many suspects do not keep the others from being tried.
        """
        lost = []
        for sample in self._list_sent_until(now_s - TIMEOUT_S):
            entry = self._entries[sample]
            if entry.batched and entry.refusals < ALONE:
                self._suspect(entry, now_s)
            else:
                lost.append(sample)
        self._lose(lost)
        self._suspects_first = not self._suspects_first
        self._flow.stall()

    def _list_sent_until(self, time_s: float) -> list[int]:
        """What is on its way since this time or before."""
        found = []
        for sample in self._flying:
            sent = self._entries[sample].sent
            if sent is not None and sent.at_s > time_s:
                break
            found.append(sample)
        return found

    def _suspect(self, entry: Entry, now_s: float) -> None:
        """Wait with it again, for a smaller batch."""
        self._land(entry)
        self._suspects[entry.answer.sample] = None
        entry.refusals += 1
        if entry.refusals == 1:
            entry.refused_at_s = now_s

    def _lose(self, samples: Iterable[int]) -> None:
        """Wait with these again, before those that were never sent."""
        lost: dict[int, None] = {}
        for sample in samples:
            entry = self._entries[sample]
            self._land(entry)
            if entry.refusals:
                self._suspects[sample] = None
            else:
                lost[sample] = None
        if lost:
            self._waiting = {**lost, **self._waiting}

    def _land(self, entry: Entry) -> None:
        del self._flying[entry.answer.sample]
        entry.move(Signal.LOSE)
        if entry.sent is not None:
            self._flow.lose(entry.sent)

    def _remove(self, sample: int, signal: Signal) -> None:
        entry = self._entries.pop(sample)
        self._bytes -= entry.size_bytes
        for group in (self._waiting, self._suspects, self._flying):
            group.pop(sample, None)
        if entry.state is State.FLYING and entry.sent is not None:
            self._flow.lose(entry.sent)
        entry.move(signal)
