"""Checkpoints of a pipeline: the states of all layers and notes, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ddnn.core.section import Array
from ddnn.errors import ConfigError
from ddnn.pipeline.stage import States
from ddnn.runtime.archive import read_all
from ddnn.runtime.whole_file import open_whole

MAX_BYTES = 4 << 30
_NOTES = "notes"


class Checkpoint(NamedTuple):
    """The states by layer, and what else is needed to go on, as a JSON object."""

    states: States
    notes: dict[str, Any]


def write_checkpoint(file: Path, states: States, notes: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all, whenever the process or the computer stops.

    The arrays are `<layer>/<name>`, and `notes` the bytes of the JSON object.
    """
    arrays: dict[str, Array] = {
        f"{layer}/{name}": value for layer, state in states.items() for name, value in state.items()
    }
    text = np.frombuffer(msgspec.json.encode(notes), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open_whole(file) as stream:
        np.savez(stream, **{_NOTES: text}, **arrays)  # type: ignore[arg-type]


def read_checkpoint(file: Path) -> Checkpoint | None:
    """Read a checkpoint; None where there is no file.

    Layers without a state have none in the file either. Whether the states fit the network shows
    when they are given to its stages. Raises ConfigError where the file cannot be read.
    """
    if not file.exists():
        return None
    arrays = read_all(file, MAX_BYTES)
    states: dict[int, dict[str, Array]] = {}
    try:
        notes = msgspec.json.decode(arrays.pop(_NOTES).tobytes(), type=dict[str, Any])
        for key, value in arrays.items():
            layer, _, name = key.partition("/")
            states.setdefault(int(layer), {})[name] = value
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{file}: no checkpoint of a pipeline ({error}); remove it to start from the beginning"
        ) from None
    return Checkpoint(states, notes)
