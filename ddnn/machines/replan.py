"""Plans the placement of a plan's pieces again when workers have joined or left for good.

The pieces stay what they are: the room says which worker is to hold which. The new placement is a
revision of the plan, which the owner loads next to the present one and changes to (see Versions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import Plan, find_base
from ddnn.machines.attendance import Attendance
from ddnn.machines.availability import Observed
from ddnn.machines.workers import WorkerPool
from ddnn.protocol.machine import Call, Effect, Log, Returned


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that may hold pieces. profile: as it announced it, None where it did not."""

    name: str
    profile: DeviceProfile | None
    observed: Observed


Replan = Callable[[Plan, Sequence[Candidate]], Plan | None]
"""The same pieces, placed on these workers; None where the present placement is as good. The plan's
id is not read. Pure: it is called in another thread."""


class ReplanJob(NamedTuple):
    """The token of a Call effect."""

    plan: str
    number: int


class Replanner:
    """Asks the room for another placement when the workers of the site have changed."""

    def __init__(self, workers: Sequence[str], replan: Replan, term_s: float, now_s: float) -> None:
        """workers: the planned ones. term_s: see Attendance."""
        self._replan = replan
        self._attendance = Attendance(workers, term_s, now_s)
        self._asked: ReplanJob | None = None
        self._number = 0
        # The plan, and the workers of whom its room has said whether another placement is better.
        self._judged: tuple[str, frozenset[str] | None] = "", frozenset(workers)

    def update(self, plan: Plan, pool: WorkerPool, now_s: float) -> list[Effect]:
        """Take who is there; to be called at regular times. plan, pool: those in use."""
        self._attendance.update({w for w in pool.present if pool.responds(w)}, now_s)
        staying = self._attendance.staying
        base = find_base(plan.id)
        if self._judged[0] != base:  # another plan: it was made for whom it names
            self._judged = base, frozenset(plan.placement)
        if self._asked is not None or self._judged == (base, staying):
            return []
        self._judged = base, staying
        self._number += 1
        self._asked = ReplanJob(plan.id, self._number)
        candidates = [self._describe(name, pool) for name in sorted(staying)]
        return [Call(self._asked, partial(self._replan, plan, candidates), lent=True)]

    def take(self, returned: Returned, plan: Plan) -> tuple[Plan | None, list[Effect]]:
        """The revision that a call gave, if it gave one for the plan in use."""
        asked, self._asked = self._asked, None
        if returned.error:
            return None, [Log("error", "planning again failed: %s", (returned.error,))]
        revised = returned.value
        if asked is None or returned.job != asked or asked.plan != plan.id:
            if self._judged[0] == find_base(plan.id):
                self._judged = self._judged[0], None  # it was of another placement: ask again
            return None, []
        if revised is None:
            return None, []
        return plan.revise(asked.number, revised.placement, revised.detail), []

    def interrupt(self) -> None:
        """The broker is gone."""
        self._attendance.interrupt()

    @staticmethod
    def _describe(name: str, pool: WorkerPool) -> Candidate:
        worker = pool.workers.get(name)
        profile = None if worker is None else worker.profile
        return Candidate(name, profile, pool.availability.read(name))
