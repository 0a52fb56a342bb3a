"""Which workers have joined or left for good.

A worker belongs to the site until it was away for its term without interruption, and belongs to it
again once it was there for its term. Each change doubles the worker's term for the next one, so
that one that comes and goes, however slowly, moves nothing any more; a long time in which it
neither comes nor goes takes the term back.

    phase      signal      next
    STAYING    MISS        LEAVING     the worker does not respond
    LEAVING    RESPOND     STAYING     it was away for a while
    LEAVING    INTERRUPT   STAYING     the broker is gone: nothing is known of anybody
    LEAVING    LAPSE       GONE        it was away for its term
    GONE       RESPOND     JOINING
    JOINING    MISS        GONE        it was there for a while
    JOINING    INTERRUPT   GONE
    JOINING    LAPSE       STAYING     it was there for its term
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from ddnn.machines.states import advance

MAX_DOUBLINGS = 6  # of a worker's term
CALM_TERMS = 10  # of uninterrupted presence or absence, after which changes are forgotten
MAX_STRANGERS = 1024  # that do not belong to the site, whose presence is followed


class Phase(Enum):
    """The states of a worker's attendance."""

    STAYING = auto()
    LEAVING = auto()
    GONE = auto()
    JOINING = auto()


class Signal(Enum):
    """What moves a worker from one phase to the next."""

    MISS = auto()
    RESPOND = auto()
    LAPSE = auto()
    INTERRUPT = auto()


TRANSITIONS: Mapping[tuple[Phase, Signal], Phase] = {
    (Phase.STAYING, Signal.MISS): Phase.LEAVING,
    (Phase.LEAVING, Signal.RESPOND): Phase.STAYING,
    (Phase.LEAVING, Signal.INTERRUPT): Phase.STAYING,
    (Phase.LEAVING, Signal.LAPSE): Phase.GONE,
    (Phase.GONE, Signal.RESPOND): Phase.JOINING,
    (Phase.JOINING, Signal.MISS): Phase.GONE,
    (Phase.JOINING, Signal.INTERRUPT): Phase.GONE,
    (Phase.JOINING, Signal.LAPSE): Phase.STAYING,
}
PENDING = (Phase.LEAVING, Phase.JOINING)


@dataclass(slots=True)
class _Worker:
    phase: Phase
    since_s: float  # when it came into this phase
    changes: int = 0  # for good

    def move(self, signal: Signal) -> None:
        self.phase = advance(TRANSITIONS, self.phase, signal, "a worker's attendance")

    def follow(self, responds: bool, term_s: float, now_s: float) -> None:
        """Take whether the worker responds now."""
        before = self.phase
        if responds and self.phase in (Phase.LEAVING, Phase.GONE):
            self.move(Signal.RESPOND)
        elif not responds and self.phase in (Phase.STAYING, Phase.JOINING):
            self.move(Signal.MISS)
        if self.phase is not before:
            self.since_s = now_s
        own_term_s = term_s * 2.0 ** min(self.changes, MAX_DOUBLINGS)
        if self.phase in PENDING and now_s - self.since_s >= own_term_s:
            self.move(Signal.LAPSE)
            self.since_s = now_s
            self.changes += 1
        elif now_s - self.since_s >= CALM_TERMS * own_term_s:
            self.changes = 0


class Attendance:
    """The workers that belong to the site for good."""

    def __init__(self, workers: Iterable[str], term_s: float, now_s: float) -> None:
        """workers: that belong to it from the start. term_s: how long one must be away, or there,
        for its first change."""
        self._term_s = term_s
        self._workers = {name: _Worker(Phase.STAYING, now_s) for name in workers}

    @property
    def staying(self) -> frozenset[str]:
        """The workers that belong to the site, whether they are there just now or not."""
        return frozenset(
            name
            for name, worker in self._workers.items()
            if worker.phase in (Phase.STAYING, Phase.LEAVING)
        )

    def update(self, present: Collection[str], now_s: float) -> None:
        """Take who is there now; to be called at regular times while there is a broker."""
        for name in set(present).difference(self._workers):
            if len(self._workers) >= MAX_STRANGERS:
                self._forget_stranger()
            self._workers[name] = _Worker(Phase.GONE, now_s)
        for name, worker in self._workers.items():
            worker.follow(name in present, self._term_s, now_s)

    def interrupt(self) -> None:
        """The broker is gone: a worker that was about to join or leave begins its term again."""
        for worker in self._workers.values():
            if worker.phase in PENDING:
                worker.move(Signal.INTERRUPT)

    def _forget_stranger(self) -> None:
        gone = (name for name, worker in self._workers.items() if worker.phase is Phase.GONE)
        name = next(gone, None)
        if name is not None:
            del self._workers[name]
