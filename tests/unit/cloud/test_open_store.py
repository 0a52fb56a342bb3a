"""A cloud whose disk is full waits for room; another database that is away is an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from cloud_app import app as module
from cloud_app.app import ROOM_BYTES, CloudSettings, open_store
from cloud_app.store import Store
from ddnn.errors import LinkError
from ddnn.runtime.disk import FreeSpace
from tests.answer_builder import make_answer


class Disk:
    """A disk that is full until `sleep` was called some times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full_for: int, error: Exception) -> None:
        self.full_for, self.slept = full_for, 0
        store = Store

        def open_(url: str) -> Any:
            if self.slept < self.full_for:
                raise error
            return store(url)

        def measure(_: Path) -> FreeSpace:
            return FreeSpace(0 if self.slept < self.full_for else 10 * ROOM_BYTES, None)

        monkeypatch.setattr(module, "Store", open_)
        monkeypatch.setattr(module, "measure_free_space", measure)

    def sleep(self, _: float) -> None:
        self.slept += 1


@pytest.mark.parametrize(
    "error",
    [LinkError("disk I/O error"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))],
    ids=lambda error: type(error).__name__,
)
def test_it_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    disk = Disk(monkeypatch, 3, error)
    settings = CloudSettings(bundle="b", state=str(tmp_path / "state"))
    store = open_store(settings, disk.sleep)
    assert disk.slept == 3
    store.save([("home", make_answer(1))])
    store.close()


def test_a_server_that_is_away_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, 3, LinkError("away"))
    settings = CloudSettings(bundle="b", state=str(tmp_path), database="postgresql://x/y")
    with pytest.raises(LinkError, match="away"):
        open_store(settings, disk.sleep)
    assert disk.slept == 0


def test_an_error_with_room_on_the_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 3, LinkError("locked"))
    monkeypatch.setattr(module, "measure_free_space", lambda _: FreeSpace(10 * ROOM_BYTES, None))
    with pytest.raises(LinkError, match="locked"):
        open_store(CloudSettings(bundle="b", state=str(tmp_path)), disk.sleep)
