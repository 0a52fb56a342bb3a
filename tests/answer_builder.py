"""An answer for tests, with the fields changed that are named."""

from __future__ import annotations

from typing import Any

import msgspec

from ddnn.protocol.messages import Answer

ANSWER = Answer(
    sample=1,
    node="edge",
    exit="local",
    label=1,
    probabilities=[0.1, 0.7, 0.2],
    eta=0.3,
    members=["cam1", "cam2"],
    missing=[],
    quality="full",
    expected_accuracy=0.9,
    bundle="b1",
    captured_at_s=10.0,
    answered_at_s=10.5,
    latency_s=0.5,
    truth=1,
    payload_bytes=80,
    wire_bytes=300,
)


def make_answer(sample: int = 1, **changes: Any) -> Answer:
    return msgspec.structs.replace(ANSWER, sample=sample, **changes)
