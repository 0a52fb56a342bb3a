"""What a plan of coded shards has besides its pieces: the layer, the code, what they cost."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.coding.code import Code
from ddnn.coding.coverage import Cost, Redundancy
from ddnn.core.plan import MAX_ELEMENTS, MAX_PIECES, Plan
from ddnn.errors import ConfigError

ROOM = "coding"
INPUT, OUTPUT = "x", "z"  # of a shard
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_PIECES)]
Name = Annotated[str, msgspec.Meta(max_length=64)]


class CertificateSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The code's certificate; see ddnn.coding.code.Certificate."""

    worst_condition: float
    worst_set: tuple[int, ...]
    exhaustive: bool
    checked: int


class CodingDetail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The detail of a plan whose pieces are shards of one linear layer.

    Arrays: head "features" -> "x", "carry0", ...; shard "x" -> "z"; tail "z", "carry0", ... ->
    "scores", "features".
    """

    layer: Name
    kind: Literal["dense", "conv2d"]
    redundancy: Redundancy
    tolerate: Count  # workers that may vanish
    code: Name
    s: Count  # shards that may vanish
    # [n, k]
    generator: Annotated[list[list[float]], msgspec.Meta(min_length=1, max_length=MAX_PIECES)]
    units: Annotated[int, msgspec.Meta(ge=1, le=MAX_ELEMENTS)]  # outputs of the layer
    cost: Cost
    certificate: CertificateSummary

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The generator matrix [n, k]. ConfigError where its rows differ in length."""
        try:
            return np.asarray(self.generator, np.float64)
        except ValueError:
            raise ConfigError("plan: the generator's rows differ in length; plan again") from None

    def make_code(self) -> Code:
        """The code to decode with."""
        return Code(self.matrix, self.s, name=self.code)


def read_detail(plan: Plan) -> CodingDetail:
    """The detail of a coding plan, checked against its pieces.

    Raises ConfigError where the generator is no matrix of numbers, has not one row for each piece,
    or more blocks than the layer has outputs, or where a shard's output is too large to be sent.
    """
    if plan.room != ROOM:
        raise ConfigError(f"plan {plan.id} is of room {plan.room!r}, not of {ROOM!r}")
    try:
        detail = msgspec.convert(plan.detail, CodingDetail)
    except msgspec.ValidationError as error:
        raise ConfigError(f"plan {plan.id}: {error}; plan again with `ddnn plan`") from None
    generator = detail.matrix
    if generator.ndim != 2 or not np.isfinite(generator).all():
        raise ConfigError("plan: the generator is no matrix of numbers; plan again")
    n, k = generator.shape
    if n != len(plan.pieces):
        raise ConfigError(f"plan: a generator of {n} rows for {len(plan.pieces)} shards")
    if not 1 <= k <= min(n, detail.units):
        raise ConfigError(f"plan: {n} shards of {k} blocks of {detail.units} outputs; plan again")
    shapes = {piece.outputs[OUTPUT].shape for piece in plan.pieces if OUTPUT in piece.outputs}
    if len(shapes) != 1 or any(piece.outputs.keys() != {OUTPUT} for piece in plan.pieces):
        raise ConfigError(f"plan: every shard must give one array {OUTPUT!r} of one shape")
    (shape,) = shapes
    if not shape or shape[-1] != math.ceil(detail.units / k):
        raise ConfigError(f"plan: shards give {shape}; {k} blocks of {detail.units} outputs differ")
    if not {"head", "tail"} <= plan.owned.keys():
        raise ConfigError("plan: it has no head and tail around its layer; plan again")
    held = sorted(piece for pieces in plan.placement.values() for piece in pieces)
    if held != list(range(n)):
        raise ConfigError("plan: every shard must have exactly one worker; plan again")
    return detail
