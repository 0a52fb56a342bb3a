"""Where the values of a configuration come from: flags, environment variables, a file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

MAX_SHOWN_CHARS = 80
_CREDENTIALS = re.compile(r"//[^/@\s]*@")  # of a URI
_PATH = re.compile(r" - at `\$\.(\w+)(\S*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")


class Sources:
    """The source of each value that was given, for messages about it."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[str, Any, bool]] = {}  # text, value, whether it is a flag

    def add_file(self, file: str | Path, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            self._sources[key] = f"{key} in {file}", value, False

    def add_variable(self, key: str, name: str, value: object) -> None:
        self._sources[key] = name, value, False

    def add_flags(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            self._sources[key] = _make_flag(key), value, True

    def describe(self, key: str) -> str:
        """The source of a key and its value."""
        text, value, _ = self._sources[key]
        return f"{text} {_show(value)}"

    def explain_invalid(self, error: str, prefix: str) -> str:
        """A message of msgspec with source and value. prefix: of environment variables."""
        missing = _MISSING.search(error)
        if missing:
            key = missing[1]
            return (
                f"no {key}; expected {_make_flag(key)}, {prefix}{key.upper()} or the key {key} in "
                "the file of --config"
            )
        found = _PATH.search(error)
        if found is None or found[1] not in self._sources:
            return f"configuration: {error}"
        reason = error[: found.start()]
        return f"{self.describe(found[1])}: {reason[:1].lower()}{reason[1:]} (key {found[1]})"

    def explain(self, message: str, keys: Collection[str]) -> str:
        """A message about flags, with the sources of those that are no flags.

        keys: of the configuration
        """
        about = [
            self.describe(key)
            for key in keys
            if key in self._sources and not self._sources[key][2] and _is_about(message, key)
        ]
        return f"{', '.join(about)}: {message}" if about else message


def _is_about(message: str, key: str) -> bool:
    flag = re.escape(_make_flag(key))
    return bool(re.search(rf"{flag}(?![\w-])", message)) or message.startswith(f"{key} ")


def _make_flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _show(value: object) -> str:
    """The value, short and without the password of a URI."""
    text = repr(_CREDENTIALS.sub("//***@", value) if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
