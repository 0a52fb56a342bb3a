"""The order in which a stage works: one forward, one backward (1F1B, PipeDream).

Stage i of N has at most N - i batches in flight. Batches come in rounds: the first forward of a
round follows the last backward of the round before, so that no batch is in flight between rounds.
A round is a mini-batch of micro-batches in the synchronous mode, the batches from one snapshot to
the next where snapshots must be consistent, and else all batches.
"""

from __future__ import annotations

from typing import Literal

from ddnn.errors import ConfigError

Operation = Literal["forward", "backward"]
Step = tuple[Operation, int]


def choose_operation(forwards: int, backwards: int, depth: int, end: int) -> Operation | None:
    """What a stage does next; None where the round is done.

    forwards, backwards: how many it has done. depth: how many batches may be in flight. end: the
    number of batches at which the round ends. The operation is a function of these alone, and so
    are the weight versions that batches use: a stage waits for its inputs and never takes another
    batch instead.
    """
    if backwards == end:
        return None
    return "backward" if forwards == end or forwards - backwards == depth else "forward"


def schedule(stages: int, batches: int) -> list[list[Step]]:
    """For each stage its operations in order, as ("forward" | "backward", batch).

    The last stage computes the backward of a batch right after its forward.
    """
    if stages < 1 or batches < 0:
        raise ConfigError(f"{stages} stages, {batches} batches; give at least 1 stage, 0 batches")
    return [_list_steps(stages - stage, batches) for stage in range(stages)]


def _list_steps(depth: int, batches: int) -> list[Step]:
    done = {"forward": 0, "backward": 0}
    steps: list[Step] = []
    while operation := choose_operation(done["forward"], done["backward"], depth, batches):
        steps.append((operation, done[operation]))
        done[operation] += 1
    return steps
