"""The node that `ddnn doctor` examines: its settings, its app and its command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from ddnn.adapters.command import read_config
from ddnn.cli.observer import UNNAMED_NODE, ObserverSettings, read_observer_settings
from ddnn.errors import ConfigError, DdnnError
from ddnn.exits.hierarchy import CLOUD
from ddnn.runtime.bundle import read_manifest

App = Literal["device", "edge", "cloud"]


class ExaminedNode:
    """A node's options, and what they and the bundle say about it.

    `app` is None where neither an option nor the bundle names it.
    """

    def __init__(self, keys: dict[str, Any], flags: Sequence[str], app: App | None) -> None:
        """`keys`: the options that every app has (None: not given); `flags`: the app's own."""
        self._file: str | None = keys.get("config")
        self._keys = {key: value for key, value in keys.items() if key != "config"}
        self.flags = list(flags)
        app_in_bundle = self._find_app_in_bundle()
        own = self._read_own_settings()
        # A node that lends and has no place in the bundle is a worker, and needs none.
        lends = own.lend == "on"
        self.is_worker = app_in_bundle is None and app in (None, "device") and lends
        self.app = app or app_in_bundle or ("device" if self.is_worker else None)
        self.share = own.share if self.app == CLOUD else ""

    @cached_property
    def settings(self) -> ObserverSettings:
        """The settings that every app has. Raises ConfigError where the app would."""
        settings = read_observer_settings(self._keys, self._file)
        if self.app == CLOUD and settings.node == UNNAMED_NODE:
            settings = read_observer_settings({**self._keys, "node": CLOUD}, self._file)
        _ = settings.broker_password  # raises where the file cannot be read
        return settings

    def make_check_command(self) -> list[str]:
        """The command line that runs the node's app with --check."""
        keys = {"config": self._file, **self._keys}
        given = {key: value for key, value in keys.items() if value is not None}
        flags = [
            text
            for key, value in given.items()
            for text in ("--" + key.replace("_", "-"), *(() if value is True else (str(value),)))
        ]
        return [sys.executable, "-m", f"{self.app}_app", *flags, *self.flags, "--check"]

    def _find_app_in_bundle(self) -> App | None:
        """The app of the node's place in the bundle's hierarchy; None where it has no place."""
        try:
            settings = read_observer_settings(self._keys, self._file)
            hierarchy = read_manifest(Path(settings.bundle))[0].hierarchy
        except (DdnnError, OSError):
            return None
        if settings.node in hierarchy.devices:
            return "device"
        if any(settings.node == group.id for group in hierarchy.edges):
            return "edge"
        return "cloud" if settings.node == CLOUD else None

    def _read_own_settings(self) -> _OwnSettings:
        """What flags, environment or file say of the app's own keys."""
        words = [word for flag in self.flags for word in flag.split("=", 1)]
        given = {
            key: words[words.index(f"--{key}") + 1]
            for key in _OwnSettings.__struct_fields__
            if f"--{key}" in words[:-1]
        }
        try:
            return read_config(_OwnSettings, given, os.environ, self._file, others=True)
        except ConfigError:  # the configuration check reports it
            return _OwnSettings()


class _OwnSettings(msgspec.Struct):
    """Keys of single apps that doctor reads."""

    lend: str = "off"
    share: str = ""
