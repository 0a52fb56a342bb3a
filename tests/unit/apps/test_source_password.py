"""A password on the command line, which every user of the machine sees, is refused."""

from __future__ import annotations

import sys

import pytest

from ddnn.errors import ConfigError
from device_app.app import open_bundle
from device_app.settings import DeviceSettings

URI = "rtsp://me:hush@camera/live"


@pytest.mark.parametrize("words", [["--source", URI], [f"--source={URI}"]])
def test_a_source_with_a_password_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["device_app", *words])
    settings = DeviceSettings(node="cam1", bundle="", source=URI)
    with pytest.raises(ConfigError, match="every user of this machine sees") as refused:
        open_bundle(settings)
    assert "hush" not in str(refused.value)
