"""Messages of recordings, and a strategy for each kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ddnn.core.preprocessing import Preprocessing, Roi
from ddnn.protocol.record_messages import (
    MAX_PICTURE_BYTES,
    RecordAck,
    RecordChunk,
    RecordOrder,
    RecordState,
)
from ddnn.protocol.topics import AnyMessage, Kind

Strategy = st.SearchStrategy[Any]


def make_strategies(counts: Strategy, ids: Strategy, texts: Strategy) -> dict[Kind, Strategy]:
    offsets, seconds = st.integers(0, MAX_PICTURE_BYTES), st.floats(-1e12, 1e12)
    return {
        Kind.RECORD_CHUNK: st.builds(
            RecordChunk,
            v=st.just(1),
            session=ids,
            burst=counts,
            sample=counts,
            offset=offsets,
            total=st.integers(1, MAX_PICTURE_BYTES),
            data=st.binary(max_size=20),
        ),
        Kind.RECORD_ACK: st.builds(
            RecordAck,
            v=st.just(1),
            session=ids,
            sample=counts,
            received=offsets,
            kept=st.booleans(),
        ),
        Kind.RECORD_ORDER: st.builds(
            RecordOrder,
            session=ids,
            burst=counts,
            from_s=seconds,
            until_s=seconds,
            every_s=st.floats(0, 3600, exclude_min=True),
            max_side_px=st.integers(1, 4096),
            quality=st.integers(1, 95),
        ),
        Kind.RECORD_STATE: st.builds(
            RecordState,
            session=ids,
            state=st.sampled_from(["refused", "recording", "sending", "done"]),
            reason=texts,
            taken=counts,
            waiting=counts,
            dropped=counts,
            period_s=st.floats(0, 1e9),
            bundle=st.text(max_size=16),
            preprocessing=st.none() | st.just(Preprocessing(rois={"cam1": Roi(0, 0, 0.5, 1)})),
            roi=st.just(Roi(0.25, 0, 0.5, 1)),
        ),
    }


SAMPLES: dict[Kind, AnyMessage] = {
    Kind.RECORD_CHUNK: RecordChunk(1, "20260102-030405-ab", 2, 1 << 42, 3, 6, b"abc"),
    Kind.RECORD_ACK: RecordAck(1, "20260102-030405-ab", 1 << 42, 6, True),
    Kind.RECORD_ORDER: RecordOrder("20260102-030405-ab", 2, 1.75e9, 1.75e9 + 30, 0.5),
    Kind.RECORD_STATE: RecordState(
        "20260102-030405-ab", "recording", "", 9, 2, 1, 0.125, "b1", Preprocessing()
    ),
}
