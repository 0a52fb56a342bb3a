"""The detail of a plan of coded shards: the layer, the code and its certificate, the cost."""

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
    """The code's certificate; see ddnn.coding.certification.Certificate."""

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
    tolerate: Count  # workers that may fail
    code: Name
    s: Count  # shards that may be missing
    # [n, k]
    generator: Annotated[list[list[float]], msgspec.Meta(min_length=1, max_length=MAX_PIECES)]
    units: Annotated[int, msgspec.Meta(ge=1, le=MAX_ELEMENTS)]  # outputs of the layer
    cost: Cost
    certificate: CertificateSummary

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The generator matrix [n, k]. Raises ConfigError where its rows differ in length."""
        try:
            return np.asarray(self.generator, np.float64)
        except ValueError:
            raise ConfigError("plan: the generator's rows differ in length; plan again") from None

    def make_code(self) -> Code:
        """The code to decode with."""
        return Code(self.matrix, self.s, name=self.code)


def read_detail(plan: Plan) -> CodingDetail:
    """The detail of a coding plan, checked against its pieces.

    Raises ConfigError where the generator is not a matrix of finite numbers with one row for each
    piece and at most as many blocks as the layer has outputs, or where the shards, the owned
    sections or the placement do not fit it.
    """
    if plan.room != ROOM:
        raise ConfigError(f"plan {plan.id} is of room {plan.room!r}; expected {ROOM!r}")
    try:
        detail = msgspec.convert(plan.detail, CodingDetail)
    except msgspec.ValidationError as error:
        raise ConfigError(f"plan {plan.id}: {error}; plan again with `ddnn plan`") from None
    generator = detail.matrix
    if generator.ndim != 2 or not np.isfinite(generator).all():
        raise ConfigError("plan: the generator is not a matrix of finite numbers; plan again")
    n, k = generator.shape
    if n != len(plan.pieces):
        raise ConfigError(
            f"plan: the generator has {n} rows for {len(plan.pieces)} shards; plan again"
        )
    if not 1 <= k <= min(n, detail.units):
        raise ConfigError(f"plan: {n} shards for {k} blocks of {detail.units} outputs; plan again")
    shapes = {piece.outputs[OUTPUT].shape for piece in plan.pieces if OUTPUT in piece.outputs}
    if len(shapes) != 1 or any(piece.outputs.keys() != {OUTPUT} for piece in plan.pieces):
        raise ConfigError(
            f"plan: every shard must give one array {OUTPUT!r} of one shape; plan again"
        )
    (shape,) = shapes
    if not shape or shape[-1] != math.ceil(detail.units / k):
        raise ConfigError(
            f"plan: the shards' outputs have shape {list(shape)}; expected "
            f"{math.ceil(detail.units / k)} values for {k} blocks of {detail.units}; plan again"
        )
    if not {"head", "tail"} <= plan.owned.keys():
        raise ConfigError("plan: it has no head and tail around its layer; plan again")
    placed = sorted(piece for pieces in plan.placement.values() for piece in pieces)
    if placed != list(range(n)):
        raise ConfigError("plan: every shard must have exactly one worker; plan again")
    return detail
