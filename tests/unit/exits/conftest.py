"""The edge node that most tests drive."""

from __future__ import annotations

import pytest

from tests.unit.exits.driven_edge import Driven
from tests.unit.exits.exit_builders import manifest_of


@pytest.fixture
def edge() -> Driven:
    accuracy = {"7": {"overall": 0.9, "local": 0.8}, "3": {"overall": 0.7, "local": 0.6}}
    return Driven(manifest_of("c", 3, accuracy=accuracy))
