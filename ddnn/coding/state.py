"""What a plan of coded shards promises, in words and numbers that need no theory to be shown."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.coding.detail import CodingDetail
from ddnn.protocol.messages import PieceGroup


def describe_plan(detail: CodingDetail, placed: int) -> str:
    """The promise in a sentence: how many shards there are, and which of them suffice.

    placed: the number of workers of the plan.
    """
    n, k = detail.matrix.shape
    workers = _count(placed, "worker")
    held = f"{_count(n, 'shard')} of code {detail.code} on {workers}."
    if detail.tolerate == 0:
        return f"{held} All are needed: no worker may vanish."
    if detail.redundancy == "replicate":
        enough = f"One copy of each of the {_count(k, 'block')} suffices"
    else:
        enough = f"Any {k} of the shards suffice"
    return f"{held} {enough}: any {detail.tolerate} of {workers} may vanish."


def list_groups(detail: CodingDetail) -> list[PieceGroup]:
    """The kinds of shards: blocks as they are, parities, mixtures or copies."""
    n, k = detail.matrix.shape
    match detail.redundancy:
        case "none":
            groups = [PieceGroup("data", 0, n)]
        case "replicate":
            groups = [PieceGroup("copies", 0, n)]
        case "coded-sparse":
            groups = [PieceGroup("mixed", 0, n)]
        case "coded":
            groups = [PieceGroup("data", 0, k), PieceGroup("parity", k, n)]
    return [group for group in groups if group.first < group.end]


def count_spare_workers(spare_shards: int, held: Iterable[int]) -> int:
    """The number of live workers that may vanish, in any combination, so that the rest suffices.

    spare_shards: live shards that may vanish, in any combination. held: the number of shards of
    each live worker. The worst combination is the workers with the most shards.
    """
    vanished = 0
    for shards in sorted(held, reverse=True):
        spare_shards -= shards
        if spare_shards < 0:
            break
        vanished += 1
    return vanished


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
