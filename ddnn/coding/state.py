"""What a plan of coded shards promises, in words and numbers that need no theory to be shown."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.coding.deployment import Deployment
from ddnn.protocol.messages import PieceGroup

ROOM = "coding"


def describe_plan(deployment: Deployment) -> str:
    """The promise in a sentence: how many shards there are, and which of them suffice."""
    n, k = deployment.matrix.shape
    workers = _count(len(deployment.workers), "worker")
    held = f"{_count(n, 'shard')} of code {deployment.code} on {workers}."
    if deployment.tolerate == 0:
        return f"{held} All are needed: no worker may vanish."
    if deployment.redundancy == "replicate":
        enough = f"One copy of each of the {_count(k, 'block')} suffices"
    else:
        enough = f"Any {k} of the shards suffice"
    return f"{held} {enough}: any {deployment.tolerate} of {workers} may vanish."


def list_groups(deployment: Deployment) -> list[PieceGroup]:
    """The kinds of shards: blocks as they are, parities, mixtures or copies."""
    n, k = deployment.matrix.shape
    match deployment.redundancy:
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
