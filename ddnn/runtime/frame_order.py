"""The order in which cameras show stored frames, so that two runs show the same ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from ddnn.errors import ConfigError
from ddnn.runtime.whole_file import write_whole

FILE = "order.json"


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    first: int  # sample that shows the first frame of the order
    seed: int


class FrameOrder:
    """The order of a directory's frames.

    Without a file order.json, sample t shows frame t modulo `count`. With it, the sample `first`
    and those after it show the frames in an order drawn with `seed`, over and over. The file may
    appear while cameras run, before its first sample: sample numbers come from the clock, and a
    site's first sample is known only when all of its nodes are up.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self._file, self._count = directory / FILE, count
        self._first = 0
        self._frames: list[int] = []

    def find_frame(self, sample: int) -> int:
        """Find the number of a sample's frame; ConfigError where order.json is not valid."""
        if not self._frames:
            self._read()
        if not self._frames or sample < self._first:
            return sample % self._count
        return self._frames[(sample - self._first) % self._count]

    def _read(self) -> None:
        try:
            order = msgspec.json.decode(self._file.read_bytes(), type=_Order)
            frames = np.random.default_rng(order.seed).permutation(self._count)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:  # msgspec's are ValueErrors
            raise ConfigError(f"{self._file}: {error}") from None
        self._first, self._frames = order.first, frames.tolist()


def write_order(directory: Path, first: int, seed: int) -> None:
    """Give the frames of a directory an order; see FrameOrder."""
    write_whole(directory / FILE, msgspec.json.encode(_Order(first, seed)), durable=False)
