"""Join the portions of groups: the first answer of each is used, a lost portion is filled.

Wang et al., 2024 (RoCoIn): the source goes on once the needed disjoint portions are there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ddnn.core.plan import Plan
from ddnn.core.section import Arrays
from ddnn.machines.offload import Combined
from ddnn.students.detail import FEATURES, PORTION, read_detail
from ddnn.students.portions import find_minority, join_portions
from ddnn.students.state import (
    count_spare_workers,
    describe_plan,
    list_alternatives,
    list_groups,
)


class StudentCombiner:
    """Joins the first portion of each group. See ddnn.machines.offload.Combiner.

    Of three replicas or more the minority is faulty. Where no majority agrees, nobody can be
    blamed: the contradiction is counted.
    """

    partial = True

    def __init__(self, plan: Plan) -> None:
        """Raises ConfigError where the plan is not a plan of students."""
        self.detail = read_detail(plan)
        self.counts = {"contradictions": 0}
        self.title = f"section {plan.group}"
        self.description = describe_plan(self.detail, len(plan.placement))
        self.groups = list_groups(self.detail)
        self.alternatives = list_alternatives(plan, self.detail)
        self._portions = frozenset(range(len(plan.pieces)))
        self._filters = [np.asarray(filters, np.intp) for filters in self.detail.filters]
        self._fill = np.asarray(self.detail.fill_values, np.float32)

    def enough(self, pieces: Collection[int], /) -> bool:
        return self._portions.issubset(pieces)

    def combine(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float, *, last: bool
    ) -> Combined:
        if not parts:
            return Combined(None)
        portions = {group: arrays[PORTION] for group, arrays in parts.items()}
        lost = self._portions.difference(portions)
        features = join_portions(portions, self._filters, self._fill)
        return Combined(
            {FEATURES: features}, missing=lost, accuracy=self.detail.accuracy_without(lost)
        )

    def inspect(self, results: Mapping[int, Mapping[str, Arrays]], now_s: float) -> frozenset[str]:
        faulty: set[str] = set()
        for by_worker in results.values():
            minority = find_minority({name: out[PORTION] for name, out in by_worker.items()})
            if minority is None:
                self.counts["contradictions"] += 1
            else:
                faulty |= minority
        return frozenset(faulty)

    def count_spare(self, holdings: Sequence[Collection[int]]) -> int:
        return count_spare_workers(len(self._portions), holdings)
