"""What tests of commands share: a broker, who speaks there, and processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ddnn.runtime.fleet import Fleet
from tests.integration.site import Voice, mosquitto


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with mosquitto(tmp_path, "allow_anonymous true") as number:
        yield number


@pytest.fixture
def voice(port: int) -> Iterator[Voice]:
    voice = Voice(port)
    yield voice
    voice.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "logs")
    yield fleet
    fleet.close()
