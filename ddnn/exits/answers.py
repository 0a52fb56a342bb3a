"""Chooses between two answers to the same sample; makes those of a device's own exit."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.exits.manifest import Manifest, find_depth, judge
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


def make_own_answer(
    sample: int,
    scores: NDArray[np.float32] | None,
    node: str,
    bundle: str,
    manifest: Manifest,
    *,
    captured_at_s: float,
    answered_at_s: float,
    latency_s: float,
    truth: int | None,
) -> Answer:
    """Make the answer of a device's own exit, which is degraded; without scores it has no label."""
    label, probabilities, eta = -1, [], 1.0
    if scores is not None:
        own = judge(manifest, "device", scores, manifest.hierarchy.make_mask([node]))
        label, probabilities, eta = own.label, own.probabilities, own.eta
    return Answer(
        sample=sample,
        node=node,
        exit="device",
        label=label,
        probabilities=probabilities,
        eta=eta,
        members=[node],
        missing=[device for device in manifest.hierarchy.devices if device != node],
        quality="degraded",
        expected_accuracy=manifest.device_accuracy.get(node),
        bundle=bundle,
        captured_at_s=captured_at_s,
        answered_at_s=answered_at_s,
        latency_s=latency_s,
        truth=truth,
        votes={node: (label, max(probabilities))} if probabilities else {},
        exit_trace=[("device", label, eta)],
    )


def measure_doubt(answer: Answer) -> float:
    """How much an answer is in doubt, 0 to 2: its normalized entropy, and the share of devices that
    name another class. A label of what is in doubt teaches a network most (B. Settles, Active
    Learning Literature Survey, 2009, Sec. 3.1 and 3.2)."""
    votes = [label for label, _ in answer.votes.values()]
    differ = sum(label != answer.label for label in votes)
    return answer.eta + (differ / len(votes) if votes else 0.0)
