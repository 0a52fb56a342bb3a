"""The edge node that most tests drive."""

from __future__ import annotations

import pytest

from tests.unit.exits.driven_edge import DrivenEdge
from tests.unit.exits.exit_builders import make_manifest


@pytest.fixture
def edge() -> DrivenEdge:
    accuracy = {"7": {"overall": 0.9, "local": 0.8}, "3": {"overall": 0.7, "local": 0.6}}
    return DrivenEdge(make_manifest("c", 3, accuracy=accuracy))
