"""The audit of the local exit: a share of the samples that it is sure of goes up all the same.

What a deeper exit answers to them says whether the local exit is still right, without labels. Which
samples are audited depends on their numbers only, so that a reader of recorded answers finds them
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddnn.exits.manifest import is_sure

_MASK = (1 << 64) - 1


def is_audited(sample: int, share: float) -> bool:
    """Whether a sample is one of the share that is audited.

    The finalizer of SplitMix64 (Steele, Lea and Flood 2014) makes of consecutive numbers values
    that are spread over 0 .. 2^64 - 1 without a pattern.
    """
    if share <= 0:
        return False
    z = (sample + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
    return (z ^ z >> 31) < share * (_MASK + 1)


def compare_audited(
    exits: Sequence[str],
    thresholds: Mapping[str, float],
    share: float,
    sample: int,
    trace: Sequence[tuple[str, int, float]],
) -> bool | None:
    """Whether the deepest exit of a sample's trace gives the label of the first one.

    trace: exit, label and normalized entropy of each exit that judged it. None where the sample is
    not audited, the first exit was not sure of it, or no deeper one answered.
    """
    if len(trace) < 2 or not is_audited(sample, share):
        return None
    tier, label, eta = trace[0]
    return trace[-1][1] == label if is_sure(exits, thresholds, tier, eta) else None
