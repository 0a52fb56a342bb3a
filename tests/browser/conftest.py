"""What the page's tests share: a site of its own for each, that speaks often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_app.web import board
from tests.browser.home import Home


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that speaks more often than each second: tests wait less for what it says next."""
    monkeypatch.setattr(board, "PERIOD_S", 0.4)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.close()
