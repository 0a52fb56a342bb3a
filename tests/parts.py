"""Parts that not every machine has. In CI a missing one is a failure, not a skip."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

REQUIRED = os.environ.get("DDNN_REQUIRE_PARTS") == "1"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
DATA = Path(os.environ.get("DDNN_DATA") or Path(__file__).parents[2] / "shared" / "data")


def need(there: object, reason: str) -> None:
    """Skip where a part is missing; fail where all parts are required."""
    if not there:
        (pytest.fail if REQUIRED else pytest.skip)(reason)


def need_mosquitto() -> None:
    need(MOSQUITTO, "mosquitto is not installed (apt install mosquitto)")


def need_data(name: str) -> Path:
    """The path of a file of real images."""
    path = DATA / name
    reason = f"no {name}; set DDNN_DATA to the directory that holds it"
    if not DATA.is_dir():
        pytest.skip(reason)
    need(path.is_file(), reason)
    return path
