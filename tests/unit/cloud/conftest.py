from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_app.store import Store
from ddnn.protocol.messages import Answer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    yield store
    store.close()


@pytest.fixture(scope="session")
def make() -> Callable[..., Answer]:
    """An answer, with the fields changed that are named."""
    answer = Answer(
        sample=1,
        node="edge",
        exit="local",
        label=1,
        probabilities=[0.1, 0.7, 0.2],
        eta=0.3,
        members=["cam1", "cam2"],
        missing=[],
        quality="full",
        expected_accuracy=0.9,
        bundle="b1",
        captured_at_s=10.0,
        answered_at_s=10.5,
        latency_s=0.5,
        truth=1,
        payload_bytes=80,
        wire_bytes=300,
    )

    def changed(sample: int = 1, **changes: Any) -> Answer:
        return msgspec.structs.replace(answer, sample=sample, **changes)

    return changed
