"""Golden vectors: what sections take and give for a few samples, kept beside their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import Arrays, Section


class GoldenRecorder:
    """Runs sections and keeps their inputs and outputs."""

    def __init__(self, sections: Mapping[str, Section]) -> None:
        self._sections = sections
        self._rows: dict[str, list[NDArray[Any]]] = {}

    def run(self, name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The outputs of a section."""
        outputs = self._sections[name](inputs)
        for way, arrays in (("in", inputs), ("out", outputs)):
            for key, value in arrays.items():
                self._rows.setdefault(f"{name}/{way}/{key}", []).append(value)
        return outputs

    def stack(self) -> dict[str, NDArray[Any]]:
        """All arrays by <section>/in|out/<array>: [samples, ...]."""
        return {key: np.stack(values) for key, values in self._rows.items()}
