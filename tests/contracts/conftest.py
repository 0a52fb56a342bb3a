"""A store on each database, SQLite and PostgreSQL; waits of transports that never end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_app.store import Store
from ddnn.adapters import mqtt_link
from tests.contracts.transport_peers import NEVER_S
from tests.postgres import Postgres

BACKENDS = ["sqlite", "postgresql"]


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cloud.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


@pytest.fixture(params=BACKENDS, scope="module")
def reused_store(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
    """A store that is emptied by its user: a database per example would take too long."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('reused')}/cloud.db"
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.database()
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def endless_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of the transport end by events only, except for those that a test bounds itself."""
    monkeypatch.setattr(mqtt_link, "ANSWER_S", NEVER_S)
    monkeypatch.setattr(mqtt_link, "FAREWELL_S", NEVER_S)
