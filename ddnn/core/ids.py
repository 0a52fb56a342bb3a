"""Ids of sites, nodes and samples."""

from __future__ import annotations

import math
import re

from ddnn.errors import ConfigError

_ID = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_ROUNDING_S = 1e-6  # a float of today's seconds resolves 0.24 µs


def is_id(text: str) -> bool:
    """Whether `text` may stand in a topic as a site or node id."""
    return _ID.fullmatch(text) is not None


def require_id(text: str, what: str) -> str:
    """`text` unchanged, or ConfigError."""
    if not is_id(text):
        raise ConfigError(
            f"{what} {text!r} is not an id; use 1 to 64 of a-z, 0-9 and '-', such as 'cam1'"
        )
    return text


def tick_of(wall_s: float, period_s: float) -> int:
    """The tick of an instant: how many whole periods fit before `wall_s` (since 1970).

    Every device computes the same tick from site time, so samples align without a coordinator.
    """
    return math.floor((wall_s + _ROUNDING_S) / period_s)
