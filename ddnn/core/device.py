"""What a computer that runs a node can do, measured by the node or declared by the operator."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from ddnn.core.ids import require_id
from ddnn.errors import ConfigError

ASSUMED_OUTAGE = 0.1  # of a device of which none is known
PRIOR_S = 600.0  # of observation that the assumption is worth
Rate = Annotated[float, msgspec.Meta(gt=0)]


class DeviceProfile(msgspec.Struct, frozen=True):
    """Speed, free memory, link and reliability of one device. None: not known.

    `outage_probability` is the probability that the device does not answer a task; 0 says that it
    always answers. Raises ConfigError where a value is impossible.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+\Z")]
    flops_per_s: Rate
    memory_bytes: Annotated[int, msgspec.Meta(gt=0, le=2**53)] | None = None
    uplink_bits_per_s: Rate | None = None
    downlink_bits_per_s: Rate | None = None
    outage_probability: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None

    def __post_init__(self) -> None:
        require_id(self.name, "the device profile's name")
        for field in ("flops_per_s", "memory_bytes", "uplink_bits_per_s", "downlink_bits_per_s"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"device profile {self.name}: {field} is {value}; give a positive number"
                )
        outage = self.outage_probability
        if outage is not None and not 0 <= outage < 1:
            raise ConfigError(
                f"device profile {self.name}: outage_probability is {outage}; "
                "give a number from 0 to below 1"
            )


def estimate_outage(share: float, observed_s: float, assumed: float = ASSUMED_OUTAGE) -> float:
    """The outage probability of a device that was away for this share of the time observed.

    A short observation says little: the estimate begins with the assumed probability and is never
    0, since a device that has not failed yet may fail.
    """
    return (share * observed_s + assumed * PRIOR_S) / (observed_s + PRIOR_S)
