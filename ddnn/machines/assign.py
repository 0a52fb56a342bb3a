"""Which worker holds which pieces of a shared layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Pieces = Mapping[str, tuple[int, ...]]


def assign(plan: Pieces, present: Collection[str], before: Pieces) -> dict[str, tuple[int, ...]]:
    """The pieces of each present worker, by the plan; spares stand in for those who are away.

    plan: the planned workers' pieces. present: who lends now, planned or not. before: the last
    assignment: a spare keeps what it has loaded while that is needed. A planned worker that comes
    back gets its own pieces again. A spare takes all pieces of one planned worker, so that nobody
    works more than was planned.
    """
    own = {worker: pieces for worker, pieces in plan.items() if worker in present}
    vacant = [pieces for worker, pieces in plan.items() if worker not in present and pieces]
    spares = sorted(worker for worker in present if worker not in plan)
    stand_ins: dict[str, tuple[int, ...]] = {}
    for spare in spares:
        if before.get(spare) in vacant:
            stand_ins[spare] = before[spare]
            vacant.remove(before[spare])
    free = (spare for spare in spares if spare not in stand_ins)
    stand_ins.update(zip(free, vacant, strict=False))
    return {**own, **stand_ins}
