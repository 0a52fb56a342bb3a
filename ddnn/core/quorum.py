"""When enough parts of a job are there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol


class Quorum(Protocol):
    """Whether a job can be completed from these parts. Monotone: a further part never harms."""

    def __call__(self, parts: Collection[Any], /) -> bool: ...
