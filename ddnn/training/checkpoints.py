"""Checkpoints of a training that was killed: weights, optimizer and step, by phase."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddnn.runtime.whole_file import PART, open_whole

log = logging.getLogger(__name__)
SUFFIX = ".checkpoint.npz"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Files `<phase>.checkpoint.npz` in a directory.

    job: what is trained, as text; checkpoints of another job are not resumed.
    """

    directory: Path
    job: str

    def load(self, phase: str, variables: Sequence[Any]) -> int:
        """Set the variables to those saved; the number of steps they have seen, 0 without any."""
        file = self._find(phase)
        if not file.exists():
            return 0
        try:
            with np.load(file, allow_pickle=False) as arrays:
                if str(arrays["job"]) != self.job:
                    return 0
                step = int(arrays["step"])
                values = [arrays[str(number)] for number in range(len(variables))]
        except Exception as error:  # zipfile, zlib and numpy raise more than a dozen kinds
            log.warning("%s cannot be read, training restarts: %s", file, error)
            return 0
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return step

    def save(self, phase: str, variables: Sequence[Any], step: int) -> None:
        """Write the variables, whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        values = {str(number): np.asarray(variable) for number, variable in enumerate(variables)}
        with open_whole(self._find(phase), durable=False) as file:
            np.savez(file, job=np.array(self.job), step=np.array(step), **values)  # type: ignore[arg-type]

    def _find(self, phase: str) -> Path:
        return self.directory / f"{phase}{SUFFIX}"


def remove_checkpoints(directory: Path) -> None:
    """Delete the checkpoints of all jobs in a directory."""
    for pattern in (f"*{SUFFIX}", f".*{SUFFIX}{PART}"):
        for file in directory.glob(pattern):
            file.unlink(missing_ok=True)
