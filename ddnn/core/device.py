"""What a computer that runs a node can do, measured by the node or declared by the operator."""

from __future__ import annotations

import math

import msgspec

from ddnn.core.ids import require_id
from ddnn.errors import ConfigError


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Speed, memory, link and reliability of one device. ConfigError where a value is impossible.

    `outage_probability` is the probability that the device does not answer a task.
    """

    name: str
    flops_per_s: float
    memory_bytes: int
    uplink_bits_per_s: float
    downlink_bits_per_s: float
    outage_probability: float = 0.0

    def __post_init__(self) -> None:
        require_id(self.name, "the device profile's name")
        for field in ("flops_per_s", "memory_bytes", "uplink_bits_per_s", "downlink_bits_per_s"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"device profile {self.name}: {field} is {value}; give a positive number"
                )
        if not 0 <= self.outage_probability < 1:
            raise ConfigError(
                f"device profile {self.name}: outage_probability is {self.outage_probability}; "
                "give a number from 0 to below 1"
            )
