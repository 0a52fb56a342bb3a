"""What `ddnn plan` decides: where a layer is cut, how it is coded, and who holds which shards."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.coding.code import Code
from ddnn.coding.coverage import Cost, Redundancy
from ddnn.core.files import BundleFile
from ddnn.core.ids import require_id
from ddnn.errors import ConfigError
from ddnn.protocol.messages import MAX_ELEMENTS, MAX_PIECES, MAX_RANK, Name

HEAD, TAIL = "head", "tail"
Shape = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=1, le=MAX_ELEMENTS)], ...],
    msgspec.Meta(min_length=1, max_length=MAX_RANK),
]
FORMAT = 1


def shard_name(piece: int) -> str:
    """The name of a shard's section."""
    return f"shard{piece}"


class Checked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the code's certificate says (see ddnn.coding.code.Certificate)."""

    worst_condition: float
    worst_set: tuple[int, ...]
    exhaustive: bool
    checked: int


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan. The edge's section is head, then the coded layer, then tail.

    Arrays: head "features" -> "x", "carry0", …; shard "x" -> "z"; tail "z", "carry0", … ->
    "scores", "features".
    """

    format: Literal[1]
    bundle: str  # id of the bundle whose section is cut
    section: str  # the edge that shares its layer; also the workers' group
    layer: Name
    kind: Literal["dense", "conv2d"]
    redundancy: Redundancy
    tolerate: Annotated[int, msgspec.Meta(ge=0, le=MAX_PIECES)]  # workers that may vanish
    code: Name
    s: Annotated[int, msgspec.Meta(ge=0, le=MAX_PIECES)]  # shards that may vanish
    # [n, k]
    generator: Annotated[list[list[float]], msgspec.Meta(min_length=1, max_length=MAX_PIECES)]
    units: Annotated[int, msgspec.Meta(ge=1)]  # outputs of the layer
    input_shape: Shape  # of x
    shard_shape: Shape  # of a shard's z
    workers: Annotated[  # the shards of each
        dict[str, tuple[int, ...]], msgspec.Meta(min_length=1, max_length=MAX_PIECES)
    ]
    sections: dict[str, BundleFile]  # head, tail, shard0 …
    golden: BundleFile
    cost: Cost
    certificate: Checked

    def __post_init__(self) -> None:
        generator = self.matrix
        if generator.ndim != 2 or not np.isfinite(generator).all():
            raise ConfigError("plan: the generator is no matrix of numbers; plan again")
        n, k = generator.shape
        if not 1 <= k <= min(n, self.units):
            raise ConfigError(f"plan: {n} shards of {k} blocks of {self.units} outputs; plan again")
        for shape in (self.input_shape, self.shard_shape):
            if math.prod(shape) > MAX_ELEMENTS:
                raise ConfigError(f"plan: arrays of shape {shape} are too large to be sent")
        if self.section in (HEAD, TAIL):
            raise ConfigError(
                f"plan: an edge cannot be called {self.section!r}, as a part of its section is"
            )
        held = [piece for pieces in self.workers.values() for piece in pieces]
        if sorted(held) != list(range(len(self.generator))):
            raise ConfigError("plan: every shard must have exactly one worker; plan again")
        for worker in self.workers:
            require_id(worker, "worker")
        names = {HEAD, TAIL, *map(shard_name, held)}
        if names != set(self.sections):
            raise ConfigError(f"plan: sections {sorted(self.sections)}; expected {sorted(names)}")

    @property
    def matrix(self) -> NDArray[np.float64]:
        try:
            return np.asarray(self.generator, np.float64)
        except ValueError:
            raise ConfigError("plan: the generator's rows differ in length; plan again") from None

    def make_code(self) -> Code:
        """The code, to decode with."""
        return Code(self.matrix, self.s, name=self.code)
