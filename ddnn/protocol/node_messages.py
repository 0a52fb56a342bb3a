"""Messages of a node about itself."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ddnn.protocol.messages import Count, ExitName, Label, Seconds


class NameClaim(msgspec.Struct, frozen=True):
    """A process uses this node's name, or wants to: of two processes the older one keeps it.

    instance: a random number of the process. age_s: how long it has run.
    """

    instance: Count
    age_s: Seconds


class Latest(msgspec.Struct, frozen=True):
    """The latest answer of a site, at most once a second."""

    label: Label
    exit: ExitName
    confidence_percent: Annotated[int, msgspec.Meta(ge=0, le=100)]


class CloudReach(msgspec.Struct, frozen=True):
    """Whether a cloud is online, as a node knows it. Retained."""

    cloud: bool


NodeMessage = NameClaim | Latest | CloudReach
