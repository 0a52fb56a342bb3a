"""Which spare workers hold which pieces of a shared layer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

Pieces = Mapping[str, tuple[int, ...]]


def stand_ins(
    vacant: Iterable[tuple[int, ...]],
    spares: Collection[str],
    doubtful: Collection[str],
    before: Pieces,
) -> dict[str, tuple[int, ...]]:
    """Spare workers for the pieces of planned ones that are not at work.

    vacant: the pieces of each planned worker that is not at work. spares: who can stand in,
    doubtful: who can if nobody better is there, the best first. before: the last assignment: a
    spare keeps what it has loaded while that is needed. A spare takes all pieces of one planned
    worker, so that nobody works more than was planned.
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
