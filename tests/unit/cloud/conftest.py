"""Fixtures: a store, a site that a test changes, and a client of the app."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from cloud_app.store import Store
from cloud_app.web import create_app
from ddnn.errors import LinkError
from ddnn.protocol.messages import Answer
from tests.answer_builder import make_answer
from tests.site_builder import FakeSite
from tests.unit.cloud.sign_in_client import make_app
from tests.unit.cloud.web_client import Away


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    yield store
    store.close()


@pytest.fixture(scope="session")
def make() -> Callable[..., Answer]:
    """The function that makes an answer with the given fields."""
    return make_answer


@pytest.fixture
def live() -> FakeSite:
    return FakeSite()


@pytest.fixture
def client(store: Store, live: FakeSite) -> FlaskClient:
    return create_app(store, live, sign_in=None).test_client()


@pytest.fixture
def app(store: Store, tmp_path: Path) -> Flask:
    """The app with a password."""
    return make_app(store, tmp_path)


@pytest.fixture
def lose_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> Away:
    """A function after whose call the store's database is away."""

    def lose() -> None:
        def fail(*_: object) -> Any:
            raise LinkError("database x: it is gone; try again")

        monkeypatch.setattr(store.database, "read", fail)
        monkeypatch.setattr(store.database, "write", fail)

    return lose
