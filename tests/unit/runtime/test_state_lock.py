"""One process at a time uses the state of a node."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddnn.errors import ConfigError
from ddnn.runtime import state_lock
from ddnn.runtime.state_lock import StateLock, read_instance


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The mask of the tests' process stays as it was."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_other_users_cannot_read_the_files_of_a_node(tmp_path: Path) -> None:
    for name in ("cam1.answers", "cam1.db", "cam1.db-wal", "cam10.answers"):
        (tmp_path / name).write_text("x")
    lock = StateLock(tmp_path, "cam1")
    (tmp_path / "cam1.new").write_text("made later")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.pop("cam10.answers") == 0o644  # of another node
    assert set(modes.values()) == {0o600}
    lock.close()


def test_a_second_process_of_a_node_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = StateLock(state, "cam1")
    StateLock(state, "cam2").close()  # another node may use the directory
    with pytest.raises(ConfigError, match=r"another process runs node cam1 .*; stop it"):
        StateLock(state, "cam1")
    assert read_instance(state, "cam1") == first.instance
    first.close()
    second = StateLock(state, "cam1")
    assert read_instance(state, "cam1") == second.instance != first.instance
    assert stat.S_IMODE((state / "cam1.lock").stat().st_mode) == 0o600
    second.close()


def test_a_copied_file_is_of_no_process_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("one\n")
    monkeypatch.setattr(state_lock, "BOOT_ID", boot)
    lock = StateLock(tmp_path, "cam1")
    assert read_instance(tmp_path, "cam1") == lock.instance
    boot.write_text("another\n")
    assert read_instance(tmp_path, "cam1") == 0
    assert read_instance(tmp_path, "cam2") == 0
    lock.close()


def test_a_directory_that_cannot_be_written_is_the_business_of_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lock = StateLock(tmp_path / "file" / "state", "cam1")
    assert lock.instance
    lock.close()
