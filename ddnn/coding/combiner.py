"""Decodes the results of coded shards, and finds those that contradict each other.

Hadidi et al., EDGE 2023, section V (any N of N + 1 results), with codes that stand the loss of any
s workers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ddnn.coding.detail import OUTPUT, read_detail
from ddnn.coding.state import count_spare_workers, describe_plan, list_groups
from ddnn.core.blocks import join
from ddnn.core.plan import Plan
from ddnn.core.section import Array, Arrays
from ddnn.errors import InconsistentAnswersError, NotDecodableError
from ddnn.machines.offload import Combined

CHECK_S = 0.5  # how often surplus results are compared with the others
WARY_S = 10.0  # after a contradiction without a culprit, all results are waited for so long


class CodingCombiner:
    """Decodes from the first decodable set of shards. See ddnn.machines.offload.Combiner.

    A surplus result that does not agree shows that somebody errs; with two, who. Where nobody can
    be named, no task is decoded for a while whose results have not been found to agree.
    """

    def __init__(self, plan: Plan) -> None:
        """Raises ConfigError where the plan is none of coded shards."""
        self.detail = read_detail(plan)
        self.code = self.detail.make_code()
        self.counts = {"contradictions": 0}
        self.title = f"layer {self.detail.layer}"
        self.description = describe_plan(self.detail, len(plan.placement))
        self.groups = list_groups(self.detail)
        self._check_s = self._wary_until_s = 0.0

    def enough(self, pieces: Collection[int], /) -> bool:
        return self.code.decodable(pieces)

    def combine(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float, *, last: bool
    ) -> Combined:
        if now_s < self._wary_until_s:
            if not last:
                return Combined(None, wait=True)
            if len(parts) <= self.code.k:  # nothing to compare with
                return Combined(None)
        elif last and not self.enough(parts.keys()):
            return Combined(None)
        return self._decode(parts, senders, now_s)

    def inspect(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float
    ) -> frozenset[str]:
        if now_s < self._check_s or len(parts) <= self.code.k:
            return frozenset()
        self._check_s = now_s + CHECK_S
        return self._decode(parts, senders, now_s).faulty

    def count_spare(self, holdings: Sequence[Collection[int]]) -> int:
        held = [len(pieces) for pieces in holdings]
        return count_spare_workers(self.code.s - (self.code.n - sum(held)), held)

    def _decode(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float
    ) -> Combined:
        shards = {piece: arrays[OUTPUT] for piece, arrays in parts.items()}
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
                decoded: Array = join(self.code.decode(shards), self.detail.units)
        except InconsistentAnswersError as error:
            if not error.workers:
                self.counts["contradictions"] += 1
                self._wary_until_s = now_s + WARY_S
            return Combined(None, frozenset(senders[piece] for piece in error.workers))
        except NotDecodableError:
            return Combined(None)
        return Combined({OUTPUT: decoded.astype(np.float32, copy=False)})
