"""What a device can do: its speed, memory, links and reliability."""

from __future__ import annotations

from math import isfinite
from typing import Annotated

import msgspec

from ddnn.core.ids import require_id
from ddnn.errors import ConfigError

Rate = Annotated[float, msgspec.Meta(gt=0)]


class DeviceProfile(msgspec.Struct, frozen=True):
    """A device, measured by itself at its start or declared in a file. None: not known."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+\Z")]
    flops_per_s: Rate
    memory_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None  # free
    uplink_bits_per_s: Rate | None = None
    downlink_bits_per_s: Rate | None = None
    outage_probability: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0

    def check(self) -> None:
        """Raise ConfigError where a value cannot be one of a device's."""
        require_id(self.name, "device")
        for what in ("flops_per_s", "uplink_bits_per_s", "downlink_bits_per_s"):
            value = getattr(self, what)
            if value is not None and not (isfinite(value) and value > 0):
                raise ConfigError(f"device {self.name}: {what} is {value}; expected above 0")
        if self.memory_bytes is not None and self.memory_bytes < 0:
            raise ConfigError(f"device {self.name}: memory_bytes is {self.memory_bytes}")
        if not 0 <= self.outage_probability < 1:
            raise ConfigError(
                f"device {self.name}: outage_probability is {self.outage_probability}; "
                "expected 0 or more, below 1"
            )
