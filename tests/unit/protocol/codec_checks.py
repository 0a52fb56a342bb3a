"""Parameters and assertions of the tests of the codec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddnn.errors import RemoteProtocolError
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Features, Result, Scores, Task
from ddnn.protocol.topics import Kind

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
MSGPACK = (
    Kind.SCORES,
    Kind.FEATURES,
    Kind.ESCALATE,
    Kind.ANSWERED,
    Kind.UPLINK,
    Kind.VERDICT,
    Kind.TASK,
    Kind.RESULT,
    Kind.TRAIN_FLOW,
    Kind.TRAIN_FETCH,
    Kind.TRAIN_PART,
    Kind.RECORD_CHUNK,
    Kind.RECORD_ACK,
    Kind.BUNDLE_PART,
)


def assert_refused(kind: Kind, data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=kind.name):
        decode(kind, data)


def read_arrays(message: Any) -> list[np.ndarray]:
    match message:
        case Scores():
            tensors = [message.scores]
        case Features():
            tensors = list(message.parts)
        case Task():
            tensors = list(message.inputs.values())
        case Result():
            tensors = list(message.outputs.values())
        case _:
            tensors = []
    return [tensor.array() for tensor in tensors]
