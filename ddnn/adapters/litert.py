"""LiteRT: runs a section's .tflite file. About 20 µs a call for a small section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ddnn.errors import SectionError


class LiteRtSection:
    """A section from a file with one signature and the batch fixed to 1.

    One thread at a time. Arrays go in and come out without the batch axis, outputs as copies.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
            runner = self._interpreter.get_signature_runner()
            self._inputs = {
                name: (detail["index"], tuple(int(n) for n in detail["shape"]), detail["dtype"])
                for name, detail in runner.get_input_details().items()
            }
            self._outputs = {
                name: detail["index"] for name, detail in runner.get_output_details().items()
            }
        except Exception as error:  # damaged files raise more than these readers document
            raise SectionError(
                f"{path} is not a usable LiteRT file: {error or type(error).__name__}"
            ) from None
        for name, (_, shape, _) in self._inputs.items():
            if not shape or shape[0] != 1:
                raise SectionError(f"{path}: input {name} has shape {shape}, expected batch 1")
        self.name = path.name

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, (index, shape, dtype) in self._inputs.items():
            value = inputs.get(name)
            if value is None or value.shape != shape[1:] or value.dtype != dtype:
                got = "nothing" if value is None else f"{value.dtype} {value.shape}"
                raise SectionError(
                    f"{self.name}: input {name}: got {got}, "
                    f"expected {np.dtype(dtype).name} {shape[1:]}"
                )
            self._interpreter.set_tensor(index, value[np.newaxis])
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(index)[0] for name, index in self._outputs.items()
        }

    def example(self) -> dict[str, NDArray[Any]]:
        """Zero inputs, to warm the section up."""
        return {
            name: np.zeros(shape[1:], dtype) for name, (_, shape, dtype) in self._inputs.items()
        }
