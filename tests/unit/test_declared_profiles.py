"""The file of declared profiles of `ddnn plan --workers devices.toml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddnn.core.device import DeviceProfile
from ddnn.errors import ConfigError
from ddnn.local_site.planning import parse_workers


def test_the_profiles_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(
        "[pi3]\nflops_per_s = 5e8\nuplink_bits_per_s = 1e6\noutage_probability = 0.2\n"
        "[pi4]\nflops_per_s = 2e9\nmemory_bytes = 1000000\n"
    )
    assert parse_workers(str(file)) == (
        DeviceProfile("pi3", 5e8, uplink_bits_per_s=1e6, outage_probability=0.2),
        DeviceProfile("pi4", 2e9, 1_000_000),
    )


@pytest.mark.parametrize(
    "text", ["", "[pi3]\n", "[pi3]\nflops_per_s = 0\n", "[pi3]\nflops_per_s = 1\nspeed = 2\n", "x"]
)
def test_a_file_that_is_no_list_of_profiles_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="--workers"):
        parse_workers(str(file))
