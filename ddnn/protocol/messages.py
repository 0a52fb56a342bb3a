"""All messages between nodes.

Data plane (Scores, Features, Escalate, Answered, Task, Result): MessagePack, array-like, the schema
version first.
Control plane (everything else): JSON, readable with mosquitto_sub.
The sender is not in a data message: the topic names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.bits import pack, packed_bytes, unpack
from ddnn.core.device import DeviceProfile
from ddnn.core.pace import ALL
from ddnn.core.plan import (
    MAX_ARRAYS,
    MAX_ELEMENTS,
    MAX_PIECES,
    MAX_RANK,
    ArraySpec,
    ArrayType,
)
from ddnn.core.site_time import MAX_EPOCH, MAX_TIME_S
from ddnn.errors import LocalProtocolError, RemoteProtocolError

SCHEMA_VERSION = 1
MAX_MESSAGE_BYTES = 16 << 20
MAX_BATCH = 256
MAX_PLANS = 4  # in use by one node at a time
MAX_MISSING = 64  # nodes that an answer names as missing
MAX_COUNT = 2**53  # what JSON readers hold exactly

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+\Z")]
BundleId = Annotated[str, msgspec.Meta(max_length=16)]
Name = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
Mask = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
PieceNumber = Annotated[int, msgspec.Meta(ge=0, lt=MAX_PIECES)]
Pieces = Annotated[list[PieceNumber], msgspec.Meta(max_length=MAX_PIECES)]
Label = Annotated[int, msgspec.Meta(ge=-1, lt=2**16)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1.000001)]
ExitName = Literal["device", "local", "edge", "cloud"]
RoleName = Literal["device", "edge", "cloud", "store", "worker"]
TrafficBytes = tuple[Count, Count]  # bytes: payload (arrays only), wire (with topics and headers)
Seconds = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
_LITTLE_ENDIAN = {"float32": "<f4", "float16": "<f2", "uint8": "|u1"}


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """An array on the wire: item type, shape, raw little-endian bytes. `bits` are packed signs."""

    type: ArrayType
    shape: Annotated[tuple[Count, ...], msgspec.Meta(max_length=MAX_RANK)]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any], *, bits: bool = False) -> Tensor:
        if bits:
            return cls("bits", array.shape, pack(array))
        name = array.dtype.name
        if name not in _LITTLE_ENDIAN:
            raise LocalProtocolError(f"arrays of {name} do not travel; use float32/float16/uint8")
        return cls(
            cast(ArrayType, name),
            array.shape,
            array.astype(_LITTLE_ENDIAN[name], copy=False).tobytes(),
        )

    def check(self) -> None:
        """Raise RemoteProtocolError unless shape and length agree; nothing is allocated."""
        count = 1
        for side in self.shape:
            count *= max(side, 1)  # numpy bounds the other sides of an empty array, too
            if count > MAX_ELEMENTS:
                raise RemoteProtocolError(f"array {self.shape}: more than {MAX_ELEMENTS} elements")
        if 0 in self.shape:
            count = 0
        if self.type == "bits":
            expected = packed_bytes(count)
        else:
            expected = count * np.dtype(_LITTLE_ENDIAN[self.type]).itemsize
        if len(self.data) != expected:
            raise RemoteProtocolError(
                f"array {self.type} {self.shape}: {len(self.data)} bytes, expected {expected}"
            )

    def array(self) -> NDArray[Any]:
        """The array; `bits` become float32 -1/+1. A read-only view where that is possible."""
        if self.type == "bits":
            return unpack(self.data, self.shape)
        return np.frombuffer(self.data, _LITTLE_ENDIAN[self.type]).reshape(self.shape)


def add_traffic(a: TrafficBytes, b: TrafficBytes) -> TrafficBytes:
    """The sum, kept within what travels: a peer's numbers never make our message unreadable."""
    return min(a[0] + b[0], MAX_COUNT), min(a[1] + b[1], MAX_COUNT)


Tensors = Annotated[dict[Name, Tensor], msgspec.Meta(min_length=1, max_length=MAX_ARRAYS)]


def make_tensors(arrays: Mapping[str, NDArray[Any]], specs: Mapping[str, ArraySpec]) -> Tensors:
    """The declared arrays as they travel; `bits` are packed. Raises LocalProtocolError where one
    is missing or is not as declared."""
    for name, spec in specs.items():
        array = arrays.get(name)
        if array is None or array.shape != spec.shape or array.dtype != spec.dtype:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise LocalProtocolError(f"array {name}: {found}, expected {spec.type} {spec.shape}")
    return {name: Tensor.of(arrays[name], bits=spec.type == "bits") for name, spec in specs.items()}


def read_tensors(
    tensors: Mapping[str, Tensor], specs: Mapping[str, ArraySpec]
) -> dict[str, NDArray[Any]] | None:
    """The arrays of a message; None unless they are exactly the declared ones."""
    declared = tensors.keys() == specs.keys() and all(
        tensors[name].type == spec.type and tensors[name].shape == spec.shape
        for name, spec in specs.items()
    )
    return {name: tensor.array() for name, tensor in tensors.items()} if declared else None


# ---------------------------------------------------------------- data plane


class Shortfall(msgspec.Struct, frozen=True, array_like=True):
    """What a section's outputs lack, because not all who share it have answered.

    missing: the workers whose share is not in it. accuracy: measured without these shares and with
    all cameras, by exit; empty where it was not measured.
    """

    missing: Annotated[list[Id], msgspec.Meta(max_length=MAX_MISSING)]
    accuracy: Annotated[dict[ExitName, Share], msgspec.Meta(max_length=4)] = {}


def add_shortfall(a: Shortfall | None, b: Shortfall | None) -> Shortfall | None:
    """What outputs lack that were made from both; the two together were not measured."""
    if a is None or b is None:
        return a or b
    return Shortfall(sorted({*a.missing, *b.missing})[:MAX_MISSING])


class Scores(msgspec.Struct, frozen=True, array_like=True):
    """Class scores that a node's section gave for a sample."""

    v: Literal[1]
    sample: Count
    bundle: BundleId
    members: Mask  # the devices that contributed
    captured_at_s: Seconds  # site time, as the capturing device knows it
    scores: Tensor
    label: Label | None = None  # of the object, where the source knows it (-1: this view is blank)
    traffic: TrafficBytes = (0, 0)  # by devices, on features below this node
    shortfall: Shortfall | None = None


class Features(msgspec.Struct, frozen=True, array_like=True):
    """What a node's section hands to the next tier: one tensor per contributing part."""

    v: Literal[1]
    sample: Count
    bundle: BundleId
    members: Mask
    captured_at_s: Seconds
    parts: Annotated[tuple[Tensor, ...], msgspec.Meta(max_length=64)]
    label: Label | None = None
    traffic: TrafficBytes = (0, 0)
    shortfall: Shortfall | None = None


class Escalate(msgspec.Struct, frozen=True, array_like=True):
    """The lead edge was not sure at exit `tier`: its nodes must send their features."""

    v: Literal[1]
    sample: Count
    bundle: BundleId
    tier: Literal["local", "edge"]


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """These samples have an answer: their devices need not keep them."""

    v: Literal[1]
    samples: Annotated[list[Count], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Task(msgspec.Struct, frozen=True, array_like=True):
    """The inputs of a plan's pieces, the same for every worker of the group."""

    v: Literal[1]
    plan: BundleId
    job: Count
    inputs: Tensors


class Result(msgspec.Struct, frozen=True, array_like=True):
    """The outputs of one piece for a task."""

    v: Literal[1]
    plan: BundleId
    job: Count
    piece: PieceNumber
    outputs: Tensors


# ------------------------------------------------------------- control plane


class Status(msgspec.Struct, frozen=True):
    """Presence of a node; the same session stands in its Last Will."""

    role: RoleName
    session: Count
    state: Literal["online", "stopped", "lost"]
    bundle: BundleId = ""
    version: Text = ""
    instance: Count = 0  # of the process, see NameClaim; 0: unknown


class Stats(msgspec.Struct, frozen=True):
    """What a node has counted since its start, every few seconds."""

    role: RoleName
    uptime_s: Seconds
    memory_bytes: Count = 0
    counts: Annotated[dict[Name, Count], msgspec.Meta(max_length=256)] = {}
    gauges: Annotated[dict[Name, float], msgspec.Meta(max_length=256)] = {}


class Answer(msgspec.Struct, frozen=True):
    """The answer to one sample, and how good it is."""

    sample: Count
    node: Id  # who answered
    exit: ExitName
    label: Label
    probabilities: Annotated[list[float], msgspec.Meta(max_length=65536)]
    eta: float  # normalized entropy at that exit
    members: Annotated[list[Id], msgspec.Meta(max_length=64)]
    # Cameras without features in it, and workers whose share of a section it lacks.
    missing: Annotated[list[Id], msgspec.Meta(max_length=MAX_MISSING)]
    quality: Literal["full", "degraded"]
    # Measured for exactly these members, and without these shares; None: not measured.
    expected_accuracy: float | None
    bundle: BundleId
    captured_at_s: Seconds
    answered_at_s: Seconds
    latency_s: Seconds  # capture to answer, by clocks that need not agree
    late: bool = False  # delivered after an outage
    truth: Label | None = None
    payload_bytes: Count = 0  # arrays that the devices sent for it
    wire_bytes: Count = 0  # the same with topics and headers
    # Per member: what its camera alone says, and its probability.
    votes: Annotated[dict[Id, tuple[Label, Share]], msgspec.Meta(max_length=64)] = {}
    # The exits that judged it, in order: label and normalized entropy at each.
    exit_trace: Annotated[list[tuple[ExitName, Label, float]], msgspec.Meta(max_length=4)] = []


class Backlog(msgspec.Struct, frozen=True):
    """Answers that were not confirmed in time, delivered again."""

    answers: Annotated[list[Answer], msgspec.Meta(max_length=MAX_BATCH)]


class Thresholds(msgspec.Struct, frozen=True):
    """A command: the exit thresholds to use from now on. None given: the bundle's own."""

    bundle: BundleId  # of another bundle they would mean nothing
    thresholds: Annotated[dict[ExitName, Share], msgspec.Meta(max_length=4)]
    revision: Count  # grows with every change of the site's; an older one is passed over


class PaceCommand(msgspec.Struct, frozen=True):
    """The lead edge commands which ticks all cameras take: see ddnn.core.pace."""

    share: Annotated[int, msgspec.Meta(ge=1, le=ALL)]
    since: Count  # the sample from which it is in force, which may be past


class TimeRequest(msgspec.Struct, frozen=True):
    """A device asks the lead edge what time it is there."""

    asked_at_s: Seconds  # by the clock of the device, which may be wrong
    epoch: Epoch = 0  # the least one in which the device can use the lead's time
    known: bool = False  # whether the device's stamps are in the lead's time already


class TimeReply(msgspec.Struct, frozen=True):
    """The lead edge's wall clock, and what it was asked with."""

    echo_s: Seconds
    replied_at_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME_S)]
    epoch: Epoch = 0  # see ddnn.core.site_time


class WorkerOffer(msgspec.Struct, frozen=True):
    """A node offers computing power: by plan, the pieces that it can compute now.

    No plan: it has none yet. profile None: it offers nothing (any more).
    """

    holds: Annotated[dict[BundleId, Pieces], msgspec.Meta(max_length=MAX_PLANS)]
    profile: DeviceProfile | None = None  # measured at its start


class Assignment(msgspec.Struct, frozen=True):
    """By plan in use, the pieces that each worker holds. A plan that is not named is retired."""

    plans: Annotated[
        dict[BundleId, Annotated[dict[Id, Pieces], msgspec.Meta(max_length=MAX_PIECES)]],
        msgspec.Meta(max_length=MAX_PLANS),
    ]


class AnswerAck(msgspec.Struct, frozen=True):
    """The store holds these samples' answers (or better ones): the node may forget its own."""

    samples: Annotated[list[Count], msgspec.Meta(max_length=4096)]


Message = (
    Scores
    | Features
    | Escalate
    | Status
    | Stats
    | Answer
    | Backlog
    | AnswerAck
    | Thresholds
    | Answered
    | PaceCommand
    | TimeRequest
    | TimeReply
    | Task
    | Result
    | WorkerOffer
    | Assignment
)
