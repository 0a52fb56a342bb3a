"""A section: a piece of the network with named arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]


class Section(Protocol):
    """What a worker runs. Arrays have no batch axis: one call, one sample.

    Raises SectionError where an input has another shape or the computation fails.
    """

    def __call__(self, inputs: Arrays) -> dict[str, Array]: ...

    def example(self) -> dict[str, Array]:
        """Inputs to warm the section up and to measure it with; empty where none are known."""
        ...
