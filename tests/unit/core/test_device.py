"""Device profiles: what is possible is accepted, everything else is refused with its name."""

from __future__ import annotations

from typing import Any

import pytest

from ddnn.core.device import DeviceProfile
from ddnn.errors import ConfigError

GOOD: dict[str, Any] = {
    "name": "pi4",
    "flops_per_s": 5e9,
    "memory_bytes": 2**30,
    "uplink_bits_per_s": 2e7,
    "downlink_bits_per_s": 5e7,
    "outage_probability": 0.02,
}


def test_a_profile_is_a_value() -> None:
    profile = DeviceProfile(**GOOD)
    assert profile == DeviceProfile(**GOOD)
    with pytest.raises(AttributeError):
        profile.name = "other"  # type: ignore[misc]
    del (reliable := dict(GOOD))["outage_probability"]
    assert DeviceProfile(**reliable).outage_probability is None, "not known is not 0"


@pytest.mark.parametrize(
    "field", ["flops_per_s", "memory_bytes", "uplink_bits_per_s", "downlink_bits_per_s"]
)
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_rates_and_sizes_are_positive_and_finite(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"pi4: {field}"):
        DeviceProfile(**{**GOOD, field: value})


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0, float("nan")])
def test_an_outage_is_never_certain(value: float) -> None:
    with pytest.raises(ConfigError, match="pi4: outage_probability"):
        DeviceProfile(**{**GOOD, "outage_probability": value})


@pytest.mark.parametrize("name", ["", "Pi 4", "a/b"])
def test_the_name_is_an_id(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        DeviceProfile(**{**GOOD, "name": name})
