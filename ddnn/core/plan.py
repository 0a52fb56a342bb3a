"""A plan: work cut into pieces, and the nodes that hold each piece.

A room (exits, coding, ...) makes plans of its own mathematics; what all of them share is here, so
that one reader, one worker and one gatherer serve every room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.core.files import BundleFile
from ddnn.core.ids import require_id
from ddnn.core.section import Arrays
from ddnn.errors import ConfigError

MAX_PIECES = 1024
MAX_RANK = 5
MAX_ELEMENTS = 1 << 24
MAX_ARRAYS = 16  # named arrays of one piece, in or out

REVISION = "-"  # between a plan's id and the number of a revision

ArrayType = Literal["float32", "float16", "uint8", "bits"]
ArrayName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Length = Annotated[int, msgspec.Meta(ge=1, le=MAX_ELEMENTS)]


def find_base(plan_id: str) -> str:
    """The id of the plan on disk that a plan is a revision of; of other plans their own."""
    return plan_id.partition(REVISION)[0]


class PieceKey(NamedTuple):
    """Names a section of a plan within a process that may run several plans at a time."""

    plan: str
    piece: int | str  # a piece's number, or the name of one of the owner's sections


class ArraySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Type and shape of a named array. `bits` are the signs of float32 values, -1 and +1."""

    type: ArrayType
    shape: Annotated[tuple[Length, ...], msgspec.Meta(max_length=MAX_RANK)]

    def __post_init__(self) -> None:
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise ConfigError(
                f"plan: an array of shape {self.shape} has more than {MAX_ELEMENTS} elements"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the array in memory."""
        return np.dtype("float32" if self.type == "bits" else self.type)


Specs = Annotated[dict[ArrayName, ArraySpec], msgspec.Meta(max_length=MAX_ARRAYS)]


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section file with its named arrays in and out."""

    file: BundleFile
    inputs: Specs
    outputs: Specs


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Pieces of one section and their placement. See `ddnn.runtime.plans` for the file.

    The section `group` of the bundle is what the plan replaces. Its owner runs `owned` sections
    around the pieces: "head" gives the inputs of every piece, "tail" takes what was combined; a
    plan without a head sends the section's own inputs, one without a tail ends with what was
    combined. Arrays that the head gives besides the pieces' inputs are carried to the tail.

    Raises ConfigError where a piece has no node, a node holds what is no piece, or the pieces take
    different inputs: a task is one message to all workers.
    """

    format: Literal[1]
    room: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=64)]
    bundle: str  # id of the bundle
    group: str  # id of the node that owns the section
    pieces: Annotated[tuple[Piece, ...], msgspec.Meta(min_length=1, max_length=MAX_PIECES)]
    placement: Annotated[
        dict[str, tuple[int, ...]], msgspec.Meta(min_length=1, max_length=MAX_PIECES)
    ]
    golden: BundleFile
    owned: dict[str, Piece] = {}
    detail: dict[str, Any] = {}  # the room's own
    id: str = ""  # of a plan that was read: the first digits of its file's sha256

    def __post_init__(self) -> None:
        require_id(self.group, "plan: group")
        held = {piece for pieces in self.placement.values() for piece in pieces}
        if held != set(range(len(self.pieces))):
            raise ConfigError(
                f"plan: {len(self.pieces)} pieces, of which the nodes hold {sorted(held)}; "
                "every piece needs a node; plan again with `ddnn plan`"
            )
        for node, pieces in self.placement.items():
            require_id(node, "plan: worker")
            if len(set(pieces)) != len(pieces):
                raise ConfigError(f"plan: {node} holds a piece twice; plan again with `ddnn plan`")
        if any(piece.inputs != self.inputs for piece in self.pieces):
            raise ConfigError("plan: its pieces take different inputs; plan again with `ddnn plan`")
        if not set(self.owned) <= {"head", "tail"}:
            raise ConfigError(
                f"plan: sections {sorted(self.owned)}; expected head and tail at most"
            )

    @property
    def inputs(self) -> Mapping[str, ArraySpec]:
        """The arrays of a task, the same for every piece."""
        return self.pieces[0].inputs

    def revise(
        self, number: int, placement: Mapping[str, tuple[int, ...]], detail: Mapping[str, Any]
    ) -> Plan:
        """The same pieces, placed otherwise. A revision has an id of its own and no file."""
        return msgspec.structs.replace(
            self,
            placement=dict(placement),
            detail=dict(detail),
            id=f"{find_base(self.id)}{REVISION}{number}",
        )

    def rename(self, plan_id: str) -> Plan | None:
        """This plan under the id of a revision of it; None where the id is another plan's.

        Who holds the pieces of a revision learns from its owner which they are: its placement and
        detail are the owner's.
        """
        if find_base(plan_id) != self.id:
            return None
        return msgspec.structs.replace(self, id=plan_id)

    def key(self, piece: int | str) -> PieceKey:
        return PieceKey(self.id, piece)

    def section(self, piece: int | str) -> Piece:
        """A piece by its number, or an owned section by its name. ConfigError: there is none."""
        if isinstance(piece, int) and 0 <= piece < len(self.pieces):
            return self.pieces[piece]
        if isinstance(piece, str) and piece in self.owned:
            return self.owned[piece]
        raise ConfigError(f"plan {self.id} has no section {piece!r}")


class PlanRequest(msgspec.Struct, frozen=True):
    """What a plan is to be like. devices: the workers, each with its speed and free memory.

    None, "" and (): the room's default. A room refuses what it does not know.
    """

    redundancy: str
    devices: tuple[DeviceProfile, ...]
    tolerate: int | None = None  # workers that may vanish
    edge: str = ""  # whose section is cut; by default the lead's
    layer: str = ""  # where it is cut; by default the heaviest
    seed: int = 0
    p_th: float | None = None  # the most probable that all holders of a piece may fail
    outage: float | None = None  # probability of failure of a device that declares none
    objective: str = ""  # which latency is to be least
    network: tuple[str, ...] = ()  # for the pieces, to choose from
    data: str = ""  # NAME[:PATH] of the data set to learn from
    steps: int | None = None  # of training


def is_finite(arrays: Arrays) -> bool:
    """Whether no value is infinite or not a number."""
    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in arrays.values())


def fits(arrays: Arrays, specs: Mapping[str, ArraySpec]) -> bool:
    """Whether these are the declared arrays, and their values finite numbers."""
    return (
        arrays.keys() == specs.keys()
        and all(
            arrays[name].shape == spec.shape and arrays[name].dtype == spec.dtype
            for name, spec in specs.items()
        )
        and is_finite(arrays)
    )


def make_zeros(specs: Mapping[str, ArraySpec]) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of zeros as declared: an example of a task."""
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
