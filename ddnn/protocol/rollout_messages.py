"""Messages of a roll-out: a site changes to another bundle while it runs.

The bundle travels as an archive in parts, which the broker retains: a node that was away finds them
there. See ddnn.machines.rollout.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.protocol.messages import BundleId, Count, Seconds, Text

PART_BYTES = 48 << 10  # links and brokers take messages of at least 64 KiB
MAX_PARTS = 1400
MAX_ARCHIVE_BYTES = PART_BYTES * MAX_PARTS

RolloutBundle = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}\Z")]
"""The id of a bundle that may be rolled out, which is the name of a directory."""
PartNumber = Annotated[int, msgspec.Meta(ge=0, lt=MAX_PARTS)]
PartCount = Annotated[int, msgspec.Meta(ge=0, le=MAX_PARTS)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
RolloutPhase = Literal["fetching", "checking", "staged", "in use", "failed"]


class BundlePart(msgspec.Struct, frozen=True, array_like=True):
    """A part of a bundle's archive. Its number is in the topic, too, in the place of the node."""

    v: Literal[1]
    number: PartNumber
    bundle: BundleId
    data: Annotated[bytes, msgspec.Meta(max_length=PART_BYTES)]


class BundleOrder(msgspec.Struct, frozen=True):
    """The bundle that a site must use, and from which sample on. Retained.

    since: None: the nodes only make it ready. An order that names the bundle in use ends a roll-out
    that was begun. given_at_s: wall time.
    """

    bundle: RolloutBundle
    sha256: Sha256  # of the archive
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_ARCHIVE_BYTES)]
    since: Count | None = None
    given_at_s: Seconds = 0.0


class BundleState(msgspec.Struct, frozen=True):
    """What a node does about the last order. Retained.

    parts: so many of the archive have arrived. reason: why it failed.
    """

    in_use: RolloutBundle
    ordered: BundleId
    phase: RolloutPhase
    parts: PartCount = 0
    reason: Text = ""


RolloutMessage = BundlePart | BundleOrder | BundleState
