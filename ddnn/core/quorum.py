"""When enough pieces of a task are there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Quorum(Protocol):
    """Whether the task can be completed from these pieces. Monotone: more pieces never harm."""

    def __call__(self, pieces: Collection[int], /) -> bool: ...
