"""A file that is replaced is never seen in part."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddnn.runtime.whole_file import open_whole, write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "a.json"
    write_whole(file, b"old", durable=durable)
    with open_whole(file, durable=durable) as new:
        new.write(b"n")
        new.flush()
        assert file.read_bytes() == b"old"
        new.write(b"ew")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "a.json"
    write_whole(file, b"old")

    def write_half() -> None:
        with open_whole(file) as new:
            new.write(b"ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    (tmp_path / ".a.json.part").write_bytes(b"half")
    write_whole(file, b"new")
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b"new", [file])


def test_the_mode_holds_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "public", b"", 0o644)
        write_whole(tmp_path / "private", b"", 0o600)
        write_whole(tmp_path / "other", b"")
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {"public": 0o644, "private": 0o600, "other": 0o600}
