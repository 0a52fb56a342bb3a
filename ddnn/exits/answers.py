"""Which of two answers to the same sample counts."""

from __future__ import annotations

import msgspec

from ddnn.exits.manifest import depth
from ddnn.protocol.messages import Answer

Rank = tuple[int, int, float, bool, float, bytes]
_ENCODER = msgspec.json.Encoder(order="deterministic")


def rank(answer: Answer) -> Rank:
    """Sort key, the greater the better: a deeper exit, more members, surer, not late, earlier (s).

    Surer before earlier: where every device answered for itself, the camera that saw the object
    counts, not the quickest of those that saw nothing.

    The encoded answer comes last: two different answers never tie, so that every store that
    sees the same answers in whatever order keeps the same one.
    """
    return (
        depth(answer.exit),
        len(set(answer.members)),
        -answer.eta,
        not answer.late,
        -answer.answered_at_s,
        _ENCODER.encode(answer),
    )


def choose_better(a: Answer, b: Answer) -> Answer:
    """The answer to keep. Associative and commutative: arrival order does not matter."""
    return a if rank(a) >= rank(b) else b
