"""Messages of recordings: pictures of several cameras, collected to train with.

A recording is the one exception to "no image leaves a device": a device takes part only where its
user allows it. See ddnn.machines.recorder and ddnn.machines.picture_collector.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi
from ddnn.protocol.messages import BundleId, Count, Id, Seconds, Text

CHUNK_BYTES = 64 << 10  # of a picture in one message, at most
MAX_PICTURE_BYTES = 8 << 20
MAX_RECORDING_S = 3600.0  # of one order
MAX_SIDE_PX = 4096

PictureBytes = Annotated[int, msgspec.Meta(ge=1, le=MAX_PICTURE_BYTES)]
PictureOffset = Annotated[int, msgspec.Meta(ge=0, le=MAX_PICTURE_BYTES)]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)]

# ---------------------------------------------------------------- data plane


class RecordChunk(msgspec.Struct, frozen=True, array_like=True):
    """A part of a JPEG picture that a device took for a recording."""

    v: Literal[1]
    session: Id
    burst: Count
    sample: Count
    offset: PictureOffset  # of the data in the picture
    total: PictureBytes
    data: Annotated[bytes, msgspec.Meta(max_length=CHUNK_BYTES)]


class RecordAck(msgspec.Struct, frozen=True, array_like=True):
    """What the collector has of a device's picture: so many bytes without a gap.

    kept: the picture is whole and on disk, so that the device may drop it.
    """

    v: Literal[1]
    session: Id
    sample: Count
    received: PictureOffset
    kept: bool = False


# ------------------------------------------------------------- control plane


class RecordOrder(msgspec.Struct, frozen=True):
    """The collector's order to all devices, repeated while it collects.

    Devices keep the pictures of ticks from `from_s` to `until_s` (of the site's time, the end
    excluded), one of `every_s`. An order with an end that has passed ends the recording.
    """

    session: Id
    burst: Count  # the number of a run of pictures with one label
    from_s: Seconds
    until_s: Seconds
    every_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_RECORDING_S)]
    max_side_px: Side = 1280
    quality: Annotated[int, msgspec.Meta(ge=1, le=95)] = 90  # of the JPEG


class RecordState(msgspec.Struct, frozen=True):
    """How a device takes part in a recording; sent on each order, and when that changes."""

    session: Id
    state: Literal["refused", "recording", "sending", "done"]
    reason: Text = ""  # of a refusal
    taken: Count = 0  # pictures
    waiting: Count = 0  # of them, not acknowledged yet
    dropped: Count = 0  # of them, lost because its memory for pictures was full
    period_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0  # of its ticks
    bundle: BundleId = ""
    preprocessing: Preprocessing | None = None  # of the bundle it runs
    roi: Roi = WHOLE


RecordMessage = RecordChunk | RecordAck | RecordOrder | RecordState
