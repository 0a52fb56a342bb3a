"""When the results of workers are enough, and whether those that are live can get there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from ddnn.core.quorum import Quorum
from ddnn.machines.workers import WorkerPool


class LiveQuorum:
    """A quorum of pieces, seen with the pieces that live workers can compute now."""

    def __init__(self, pool: WorkerPool, enough: Quorum, *, use_partial: bool = False) -> None:
        """use_partial: fewer pieces than are enough are of use too, where live workers cannot give
        more.
        """
        self.use_partial = use_partial
        self._pool, self._enough = pool, enough
        self._checked: tuple[frozenset[int], bool] | None = None  # live pieces: are they enough

    def is_possible(self) -> bool:
        """Whether the live workers are enough."""
        live = self._pool.live_pieces
        if self._checked is None or self._checked[0] is not live:
            self._checked = live, self._enough(live)
        return self._checked[1]

    def is_useful(self) -> bool:
        """Whether a task that is sent now can give a result that is of use."""
        return self.is_possible() or (self.use_partial and bool(self._pool.live))

    def make_quorum(self, *, probe: bool = False) -> Quorum:
        """The quorum of a task that is sent now. probe: its results are not used."""
        if probe:
            return _is_never_enough
        return partial(self._is_most, self._pool.live) if self.use_partial else self._enough

    def _is_most(self, expected: Mapping[str, frozenset[int]], pieces: Collection[int], /) -> bool:
        """Whether the pieces are enough, or no live worker of those expected can give another."""
        if not pieces:
            return False
        live = self._pool.live
        all_there = all(held.issubset(pieces) for name, held in expected.items() if name in live)
        return all_there or self._enough(pieces)


def _is_never_enough(pieces: Collection[int], /) -> bool:
    return False
