"""Files of a bundle that are no files: a check must not wait for them for ever."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ddnn.core.files import BundleFile
from ddnn.errors import ConfigError
from ddnn.runtime.bundle import check_file, read_manifest


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["FIFO", "device"]
)
def test_what_is_no_regular_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "cam1.tflite")
    make(tmp_path / "manifest.json")
    entry = BundleFile("cam1.tflite", hashlib.sha256(b"").hexdigest())
    with pytest.raises(ConfigError, match=r"cam1\.tflite is no regular file"):
        check_file(tmp_path, entry)
    with pytest.raises(ConfigError, match=r"manifest\.json is no regular file"):
        read_manifest(tmp_path)
