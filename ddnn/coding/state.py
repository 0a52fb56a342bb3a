"""The state of a plan of coded shards, as text and numbers for the page."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.coding.detail import CodingDetail
from ddnn.protocol.offload_state import PieceGroup


def describe_plan(detail: CodingDetail, worker_count: int) -> str:
    """The number of shards, and which of them suffice, in a sentence.

    worker_count: the number of workers of the plan.
    """
    n, k = detail.matrix.shape
    workers = format_count(worker_count, "worker")
    shards = f"{format_count(n, 'shard')} of code {detail.code} on {workers}."
    if detail.tolerate == 0:
        return f"{shards} All are needed: no worker may vanish."
    if detail.redundancy == "replicate":
        enough = f"One copy of each of the {format_count(k, 'block')} suffices"
    else:
        enough = f"Any {k} of the shards suffice"
    return f"{shards} {enough}: any {detail.tolerate} of {workers} may vanish."


def list_groups(detail: CodingDetail) -> list[PieceGroup]:
    """The kinds of shards: uncoded blocks, parities, combinations or copies."""
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


def count_spare_workers(spare_shards: int, shard_counts: Iterable[int]) -> int:
    """The number of live workers that may fail, in any combination, so that the rest suffices.

    spare_shards: live shards that may be lost, in any combination. shard_counts: the number of
    shards of each live worker. The worst combination is the workers with the most shards.
    """
    spare_workers = 0
    for shards in sorted(shard_counts, reverse=True):
        spare_shards -= shards
        if spare_shards < 0:
            break
        spare_workers += 1
    return spare_workers


def format_count(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun, in the plural unless the number is 1."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
