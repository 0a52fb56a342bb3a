"""A section: a piece of the network with named arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

# Kernels differ between processors in the last bits; a wrong file differs in the first.
GOLDEN_TOLERANCE = 2e-3

Array = NDArray[Any]
Arrays = Mapping[str, Array]


class BundleKey(NamedTuple):
    """Names a section of a bundle within a process that may run several bundles at a time."""

    bundle: str
    section: str


class Section(Protocol):
    """What a worker runs. Arrays have no batch axis: one call, one sample.

    Raises SectionError where an input has another shape or the computation fails.
    """

    def __call__(self, inputs: Arrays) -> dict[str, Array]: ...

    def example(self) -> dict[str, Array]:
        """Inputs to warm the section up and to measure it with; empty where none are known."""
        ...


def is_close(output: NDArray[np.generic] | None, golden: NDArray[np.generic]) -> bool:
    """Whether an output is the golden one, up to what kernels of other processors differ by."""
    return (
        output is not None
        and golden.dtype.kind == "f"
        and output.shape == golden.shape
        and np.allclose(output, golden, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE)
    )
