from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud_app.store import Store
from ddnn.protocol.messages import Answer
from tests.answer_builder import make_answer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    yield store
    store.close()


@pytest.fixture(scope="session")
def make() -> Callable[..., Answer]:
    """An answer, with the fields changed that are named."""
    return make_answer
