"""Where the values of a configuration come from: flags, environment variables, a file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ddnn.core.text import mask_passwords

MAX_SHOWN_CHARS = 80
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
        begins = [key for key in keys if message.startswith(key.replace("_", " ") + " ")]
        named = max(begins, key=len, default=None)  # site file rather than site
        about = [
            self.describe(key)
            for key in keys
            if key in self._sources
            and not self._sources[key][2]
            and (key == named or _names_flag(message, key))
        ]
        return f"{', '.join(about)}: {message}" if about else message


def _names_flag(message: str, key: str) -> bool:
    return bool(re.search(rf"{re.escape(_make_flag(key))}(?![\w-])", message))


def _make_flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _mask(text: str) -> str:
    """Without passwords, also where it is a URI that is written wrongly."""
    if "@" in text and "//" not in text:
        return "***" + text[text.rindex("@") :]
    return mask_passwords(text)


def _show(value: object) -> str:
    """The value, short and without the password of a URI."""
    text = repr(_mask(value) if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
