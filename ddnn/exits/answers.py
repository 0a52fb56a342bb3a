"""Chooses between two answers to the same sample."""

from __future__ import annotations

import msgspec

from ddnn.exits.manifest import find_depth
from ddnn.protocol.messages import Answer

Rank = tuple[int, int, float, bool, float, bytes]
_ENCODER = msgspec.json.Encoder(order="deterministic")


def rank(answer: Answer) -> Rank:
    """Rank an answer, the better the greater: by exit, members, certainty, lateness and time (s).

    Certainty precedes time: where every device answers alone, the answer of a camera that sees the
    object must win over an earlier one of a camera that sees nothing.

    The encoded answer comes last, so that two different answers never tie, and all stores keep the
    same answer whatever the order of arrival.
    """
    return (
        find_depth(answer.exit),
        len(set(answer.members)),
        -answer.eta,
        not answer.late,
        -answer.answered_at_s,
        _ENCODER.encode(answer),
    )


def choose_better(a: Answer, b: Answer) -> Answer:
    """Choose the answer to keep. Associative and commutative, so the order does not matter."""
    return a if rank(a) >= rank(b) else b
