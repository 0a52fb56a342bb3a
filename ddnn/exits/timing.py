"""The deadlines of a sample, in seconds after its capture, by the clock of the node that waits."""

from __future__ import annotations

import math

import msgspec

from ddnn.errors import ConfigError


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The time that a sample may take, and the time that its stages wait.

    The wait of a stage ends early when all live members have reported. After `edge_share` of the
    deadline the lead edge answers from the deepest exit that it has; after `device_share` a device
    that has received no answer answers alone.
    """

    deadline_s: float = 1.0
    window_s: float = 0.12  # waiting for the members' scores, and again for their features
    edge_share: float = 0.7
    device_share: float = 0.88

    def __post_init__(self) -> None:
        if not 0 < self.edge_share < self.device_share < 1:
            raise ConfigError("expected 0 < edge_share < device_share < 1")
        if not (0 < self.deadline_s < math.inf and 0 < self.window_s < math.inf):
            raise ConfigError("deadline_s and window_s must be above 0, and finite")
        if 2 * self.window_s >= self.edge_share * self.deadline_s:
            raise ConfigError(
                f"window_s {self.window_s} leaves no time for the cloud within deadline_s "
                f"{self.deadline_s}; use a window under {0.5 * self.edge_share * self.deadline_s}"
            )

    @property
    def edge_s(self) -> float:
        return self.deadline_s * self.edge_share

    @property
    def device_s(self) -> float:
        return self.deadline_s * self.device_share
