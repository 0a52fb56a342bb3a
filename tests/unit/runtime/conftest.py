"""A node that runs in the test's process; its thread ends with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.runtime.driven_node import IN_TIME_S, DrivenNode


@pytest.fixture
def make_node() -> Iterator[Callable[..., DrivenNode]]:
    """make_node(**options) makes a node; all loops are closed in the end."""
    made: list[DrivenNode] = []

    def build(**options: Any) -> DrivenNode:
        made.append(DrivenNode(**options))
        return made[-1]

    yield build
    for running in made:
        if running.loop._thread.is_alive():
            running.loop.close()
            assert running.loop.join(IN_TIME_S)
