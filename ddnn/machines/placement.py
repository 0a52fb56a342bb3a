"""Which worker holds which pieces of a plan, and when to announce it.

The planned workers always keep their own pieces. Where one of them is not at work, a spare worker
gets the same pieces until it is, first those that no other planned worker holds. A spare that does
not load them in time gives way to another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from ddnn.core.plan import MAX_PIECES
from ddnn.machines.workers import NO_PIECES, WorkerPool

SETTLE_S = 0.2  # changes come in groups: pieces are placed once they have settled
LOAD_S = 3.0  # a spare that has not loaded its pieces by then gives way to another
MAX_DOUBLINGS = 5  # of this time, for a spare that has failed before
REPEAT_S = 5.0  # least time between announcements to workers that hold other pieces than assigned

Pieces = Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class _Spare:
    """How a spare worker does with the pieces that it was given."""

    given_s: float = 0.0  # when it got them, or another chance
    failures: int = 0  # to load such pieces in time, in this session

    @property
    def due_s(self) -> float:
        """When it must have loaded; later each time, for loading may just be slow."""
        return self.given_s + LOAD_S * 2.0 ** min(self.failures, MAX_DOUBLINGS)


class Placement:
    """Places the pieces on the workers of a pool; `update` gives what to announce."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._spares: dict[str, _Spare] = {}
        self._announced: dict[str, tuple[int, ...]] | None = None
        self._announced_s = 0.0
        self._contradicted = False  # a worker seems to have received something else since
        self._due_s: float | None = None
        self._connected = False
        pool.on_new_session = self._restart

    @property
    def due_s(self) -> float | None:
        """When `update` must be called; None while nothing changes."""
        return self._due_s

    def connect(self, connected: bool, now_s: float) -> None:
        self._connected = connected
        if connected:
            self._announced = None  # the broker may have forgotten it
        self.change(now_s)

    def change(self, now_s: float) -> None:
        """Something changed in the pool: place the pieces again once changes have settled."""
        self._schedule(now_s + SETTLE_S)

    def contradict(self) -> None:
        """A worker follows another plan, or an assignment that is not ours."""
        self._contradicted = True

    def update(self, now_s: float) -> Pieces | None:
        """Place the pieces if it is time; the assignment if it must be announced."""
        if self._due_s is None or now_s < self._due_s:
            return None
        self._due_s = None
        pool = self._pool
        present = pool.present
        planned = {name: held for name, held in pool.planned.items() if not pool.is_faulty(name)}
        vacant = [
            pieces
            for name, pieces in pool.planned.items()
            if not pool.live.get(name, NO_PIECES).issuperset(pieces)
        ]
        at_work = Counter(p for name in pool.planned for p in pool.live.get(name, NO_PIECES))
        vacant.sort(key=lambda pieces: min((at_work[piece] for piece in pieces), default=0))
        spares = sorted(name for name in present if not pool.planned.get(name))
        kept = self._drop_late(spares, now_s)
        trusted = [name for name in spares if self._is_trusted(name)]
        doubtful = sorted(
            (name for name in spares if not self._is_trusted(name)),
            key=lambda name: self._spare(name).failures,  # so that all have their turn
        )
        stand_ins = find_stand_ins(vacant, trusted, doubtful, kept)
        # A message holds so many and no more.
        assigned = dict(islice({**planned, **stand_ins}.items(), MAX_PIECES))
        for name in stand_ins.keys() & assigned.keys():
            if stand_ins[name] != pool.assigned.get(name):
                self._spare(name).given_s = now_s
            if not pool.workers[name].holds.issuperset(stand_ins[name]):
                self._schedule(self._spare(name).due_s)
        pool.assign(assigned)
        return self._announce(present, now_s)

    def _announce(self, present: Collection[str], now_s: float) -> Pieces | None:
        """The assignment, if it is new; once more, if it has not reached all that are present: the
        retained message may have been emptied or overwritten, and so may an offer. Workers answer
        each; their answers lead to another only while they differ."""
        if not self._connected:
            return None
        pool = self._pool
        astray = self._contradicted or any(
            pool.workers[name].holds != frozenset(pool.assigned.get(name, ())) for name in present
        )
        repeat = astray and now_s >= self._announced_s + REPEAT_S
        announce = repeat or pool.assigned != self._announced
        if announce:
            self._announced, self._announced_s = dict(pool.assigned), now_s
            self._contradicted = False
        if astray:
            self._schedule(self._announced_s + REPEAT_S)
        return pool.assigned if announce else None

    def _drop_late(self, spares: Collection[str], now_s: float) -> dict[str, tuple[int, ...]]:
        """The present assignment without the spares that have not loaded their pieces in time."""
        kept = dict(self._pool.assigned)
        for name in spares:
            spare, pieces = self._spare(name), kept.get(name, ())
            if pieces and self._pool.workers[name].holds.issuperset(pieces):
                spare.failures = 0
            elif pieces and now_s >= spare.due_s:
                spare.failures += 1
                spare.given_s = now_s
                del kept[name]
        self._spares = {n: spare for n, spare in self._spares.items() if n in self._pool.workers}
        return kept

    def _is_trusted(self, name: str) -> bool:
        return self._pool.responds(name) and not self._spare(name).failures

    def _spare(self, name: str) -> _Spare:
        return self._spares.setdefault(name, _Spare())

    def _restart(self, name: str, now_s: float) -> None:
        """A worker's new session has not failed yet."""
        self._spares[name] = _Spare(now_s)

    def _schedule(self, time_s: float) -> None:
        self._due_s = time_s if self._due_s is None else min(self._due_s, time_s)


def find_stand_ins(
    vacant: Iterable[tuple[int, ...]],
    spares: Collection[str],
    doubtful: Collection[str],
    before: Pieces,
) -> dict[str, tuple[int, ...]]:
    """Spare workers for the pieces of planned ones that are not at work.

    vacant: the pieces of each planned worker that is not at work, the most urgent first. spares:
    those that can stand in, doubtful: those that can if there is no better one, the best first.
    before: the last assignment: a spare keeps what it has loaded while that is needed. A spare
    takes all pieces of one planned worker, so that none works more than was planned.
    """
    left = [pieces for pieces in vacant if pieces]
    taken: dict[str, tuple[int, ...]] = {}
    for group in (spares, doubtful):
        for spare in group:
            if before.get(spare) in left:
                taken[spare] = before[spare]
                left.remove(before[spare])
        for spare in group:
            if left and spare not in taken:
                taken[spare] = left.pop(0)
    return taken
