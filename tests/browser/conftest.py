"""What the page's tests share: a site of its own for each, with frequent updates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_app.web import board
from tests.browser.home import Home


@pytest.fixture(autouse=True)
def frequent_and_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends updates more often than each second, so that tests wait less, and waits
    longer for the database, which is slow on a busy machine."""
    monkeypatch.setattr(board, "PERIOD_S", 0.4)
    monkeypatch.setattr(board, "DATABASE_TIMEOUT_S", 20.0)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.close()
