"""Decode the results of coded shards, and find workers whose results contradict the others'.

Hadidi et al., EDGE 2023, section V (any N of N + 1 results), with codes that tolerate the loss of
any s workers.
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

CHECK_S = 0.5  # interval between checks of surplus results that arrive after decoding
VERIFY_S = 10.0  # after a contradiction whose cause is unknown: only verified results are used


class CodingCombiner:
    """Decodes from the first decodable set of shards. See ddnn.machines.offload.Combiner.

    One surplus result detects a faulty (Byzantine) worker, two identify it. Where the faulty worker
    cannot be identified, for `VERIFY_S` only tasks are decoded whose surplus results agree.
    """

    partial = False

    def __init__(self, plan: Plan) -> None:
        """Raises ConfigError where the plan is not a plan of coded shards."""
        self.detail = read_detail(plan)
        self.code = self.detail.make_code()
        self.counts = {"contradictions": 0}
        self.title = f"layer {self.detail.layer}"
        self.description = describe_plan(self.detail, len(plan.placement))
        self.groups = list_groups(self.detail)
        self.alternatives = None
        self._next_check_s = self._verify_until_s = 0.0

    def enough(self, pieces: Collection[int], /) -> bool:
        return len(pieces) >= self.code.k and self.code.is_decodable(pieces)

    def combine(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float, *, last: bool
    ) -> Combined:
        if now_s < self._verify_until_s:
            if not last:
                return Combined(None, wait=True)
            if len(parts) <= self.code.k:  # without surplus they cannot be verified
                return Combined(None)
        elif last and not self.enough(parts.keys()):
            return Combined(None)
        return self._decode(parts, senders, now_s)

    def inspect(self, results: Mapping[int, Mapping[str, Arrays]], now_s: float) -> frozenset[str]:
        if now_s < self._next_check_s or len(results) <= self.code.k:
            return frozenset()
        self._next_check_s = now_s + CHECK_S
        first = {piece: next(iter(given.items())) for piece, given in results.items()}
        parts = {piece: arrays for piece, (_, arrays) in first.items()}
        senders = {piece: worker for piece, (worker, _) in first.items()}
        return self._decode(parts, senders, now_s).faulty

    def count_spare(self, holdings: Sequence[Collection[int]]) -> int:
        shards = [len(pieces) for pieces in holdings]
        return count_spare_workers(self.code.s - (self.code.n - sum(shards)), shards)

    def _decode(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float
    ) -> Combined:
        shards = {piece: arrays[OUTPUT] for piece, arrays in parts.items()}
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # overflow is rejected below
                decoded: Array = join(self.code.decode(shards), self.detail.units)
        except InconsistentAnswersError as error:
            if not error.workers:
                self.counts["contradictions"] += 1
                self._verify_until_s = now_s + VERIFY_S
            return Combined(None, frozenset(senders[piece] for piece in error.workers))
        except NotDecodableError:
            return Combined(None)
        return Combined({OUTPUT: decoded.astype(np.float32, copy=False)})
