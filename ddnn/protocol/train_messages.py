"""Messages of nodes that train one network together; see ddnn.protocol.messages.

The topic names the node that gets a message, except for TrainOffer; the message names its sender.
A term numbers the arrangements of nodes: messages of an earlier term are dropped.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.core.device import DeviceProfile
from ddnn.protocol.messages import MAX_MESSAGE_BYTES, Count, Id, Name, Seconds, Share, Text

MAX_LAYERS = 4096
MAX_NODES = 1024
MAX_COPIES = 4 * MAX_LAYERS
MAX_RESULTS = 64  # in one report
MAX_ENTRIES = 100
PART_BYTES = MAX_MESSAGE_BYTES - 1024  # of the data of one message, at most

LayerNumber = Annotated[int, msgspec.Meta(ge=0, lt=MAX_LAYERS)]
LayerBound = Annotated[int, msgspec.Meta(ge=0, le=MAX_LAYERS)]
PartBytes = Annotated[bytes, msgspec.Meta(max_length=PART_BYTES)]
Duration = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Origin = Annotated[int, msgspec.Meta(ge=0, le=2)]
CopyFields = tuple[LayerNumber, Count, Count, Origin]  # layer, term, version, origin
SourceFields = tuple[LayerNumber, Annotated[str, msgspec.Meta(max_length=64)], Count, Count]
Action = Literal["probe", "halt", "hold", "start", "drain", "resend", "release"]

# ---------------------------------------------------------------- data plane


class TrainFlow(msgspec.Struct, frozen=True, array_like=True):
    """A part of the arrays that a batch passes on: activations, gradients or labels."""

    v: Literal[1]
    sender: Id
    way: Literal["forward", "backward", "labels"]
    term: Count
    batch: Count
    offset: Count  # of the data in all of the bytes
    total: Count
    data: PartBytes


class TrainFetch(msgspec.Struct, frozen=True, array_like=True):
    """Asks for a part of a copy of a layer's state."""

    v: Literal[1]
    sender: Id
    layer: LayerNumber
    term: Count
    version: Count
    offset: Count
    length: Count


class TrainPart(msgspec.Struct, frozen=True, array_like=True):
    """A part of a copy of a layer's state.

    total: bytes of the copy, 0 where the sender has none. waited: it had none yet when it was
    asked, so that the time of the answer says nothing of the link.
    """

    v: Literal[1]
    sender: Id
    data: PartBytes
    layer: LayerNumber
    term: Count
    version: Count
    offset: Count
    total: Count
    waited: bool = False


# ------------------------------------------------------------- control plane


class TrainOffer(msgspec.Struct, frozen=True):
    """A node offers to train a network; retained. leaving: it wants to leave in order."""

    network: Text  # the only one that it trains; empty: whichever an assignment describes
    incarnation: Count  # another one after each start of the process
    leaving: bool = False
    profile: DeviceProfile | None = None


class TrainAssignment(msgspec.Struct, frozen=True):
    """How nodes are arranged in a term, and where the receiver gets its layers from."""

    nodes: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MAX_NODES)]  # in order
    ranges: Annotated[
        list[tuple[LayerBound, LayerBound]], msgspec.Meta(min_length=1, max_length=MAX_NODES)
    ]
    version: Count  # optimizer steps at which the term begins
    batches: Count  # at which training ends
    round_batches: Count  # no batch is in flight between rounds; 0: one round
    step_batches: Annotated[int, msgspec.Meta(ge=1, le=65536)]  # batches of an optimizer step
    # Those of the receiver's layers that are not initial: layer, node, term and version of a copy.
    sources: Annotated[list[SourceFields], msgspec.Meta(max_length=MAX_LAYERS)] = []
    aggregate_every: Count = 0  # optimizer steps; 0: never
    delay: Count = 0  # optimizer steps between the weights in use and the latest; 0: stage depth
    chain_every: Count = 0  # optimizer steps
    global_every: Count = 0
    consistent: bool = False
    network: Annotated[str, msgspec.Meta(max_length=4000)] = ""  # its description
    deep: bool = False  # more batches in flight, which hides the time of links


class TrainCommand(msgspec.Struct, frozen=True):
    """The central node's command.

    probe: report what you are. halt: and stop work. hold: get these layers ready. start: begin the
    term. drain: end before the batch `number`. resend: repeat what is not answered. release:
    training is over, or you may leave.
    """

    sender: Id
    run: Name
    term: Count
    action: Action
    number: Count = 0  # of the question, echoed by the reply
    assignment: TrainAssignment | None = None


class TrainReply(msgspec.Struct, frozen=True):
    """The reply to a command. term: that of the sender; copies: what it holds."""

    sender: Id
    run: Name
    term: Count
    answers: Action
    number: Count
    incarnation: Count
    ok: bool = True
    error: Text = ""
    copies: Annotated[list[CopyFields], msgspec.Meta(max_length=MAX_COPIES)] = []


class TrainResult(msgspec.Struct, frozen=True, array_like=True):
    """What a batch gave at its last layer: the mean loss, and how many samples were right.

    loss: None where it is not finite, which JSON cannot say.
    """

    batch: Count
    loss: float | None
    correct: Count
    samples: Count


class TrainReport(msgspec.Struct, frozen=True):
    """How a node does: mean times per batch, and results where it holds the last layer."""

    sender: Id
    term: Count
    backwards: Count  # batches done
    forward_s: Duration
    backward_s: Duration
    rate_bytes_per_s: Annotated[float, msgspec.Meta(ge=0, le=1e15)] = 0.0  # 0: not measured
    results: Annotated[list[TrainResult], msgspec.Meta(max_length=MAX_RESULTS)] = []


class TrainPlace(msgspec.Struct, frozen=True):
    """A node's part in a training.

    batch_s: what its layers take per batch; idle_share: of the time per batch in which it computes
    nothing. 0 and 1 before they are measured.
    """

    node: Id
    start: LayerBound
    stop: LayerBound
    batch_s: Duration = 0.0
    idle_share: Share = 1.0


class TrainEntry(msgspec.Struct, frozen=True):
    """What happened, after how many batches."""

    at_s: Seconds  # wall time
    batch: Count
    kind: Name
    text: Text


class TrainState(msgspec.Struct, frozen=True):
    """How a training goes, published by its central node every second."""

    run: Name
    state: Name
    term: Count
    batches: Count  # done
    end: Count  # at which training ends
    version: Count = 0  # optimizer steps done
    copied: Count = 0  # those of the central node's latest copy of all layers
    chain_every: Count = 0  # optimizer steps between copies to the next node
    global_every: Count = 0  # and to the central node
    loss: float | None = None  # mean of the latest batches
    accuracy: Share | None = None  # of the same batches
    batch_s: Duration = 0.0
    failures: Count = 0
    workers: Count = 0  # that can be used
    places: Annotated[list[TrainPlace], msgspec.Meta(max_length=MAX_NODES)] = []
    timeline: Annotated[list[TrainEntry], msgspec.Meta(max_length=MAX_ENTRIES)] = []  # the latest


TrainMessage = (
    TrainFlow
    | TrainFetch
    | TrainPart
    | TrainOffer
    | TrainCommand
    | TrainReply
    | TrainReport
    | TrainState
)
