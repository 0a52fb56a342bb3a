"""The state of a section whose work goes to workers, for those who watch a site."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.core.plan import MAX_PIECES
from ddnn.protocol.messages import BundleId, Count, ExitName, Id, Name, Pieces, Seconds, Share, Text

MAX_AXES = 4
MAX_ALTERNATIVES = 24  # in a message that is sent each second


class WorkerState(msgspec.Struct, frozen=True):
    """How a worker does, as the node that shares its layer sees it."""

    state: Literal["live", "loading", "stalled", "lost", "faulty"]
    pieces: Pieces  # that it is assigned
    planned: bool = True  # False: a spare that has joined
    answered: Count = 0  # pieces in time
    used: Count = 0  # of them, what was decoded from
    late: Count = 0  # of them, after the others were enough
    missed: Count = 0  # tasks that ended without it
    latency_ms: float = 0.0  # task to answer, smoothed
    # The share of the time observed in which it could not be counted on; earlier times count less.
    outage: Share = 0.0
    observed_s: Seconds = 0.0


class PieceGroup(msgspec.Struct, frozen=True):
    """Pieces of one kind, `first` up to but not including `end`, as the room names them."""

    name: Name
    first: Count
    end: Count


class Axis(msgspec.Struct, frozen=True):
    """A figure in which alternatives differ."""

    name: Name
    unit: Literal["s", "share", "bytes", "count"]


class Alternative(msgspec.Struct, frozen=True):
    """A plan that could be in use, or is. values: its figures, one for each axis."""

    label: Text
    values: Annotated[list[float], msgspec.Meta(max_length=MAX_AXES)]
    current: bool = False


class Alternatives(msgspec.Struct, frozen=True):
    """Plans none of which is better than another in all figures, and the one in use."""

    title: Name
    axes: Annotated[list[Axis], msgspec.Meta(max_length=MAX_AXES)]
    points: Annotated[list[Alternative], msgspec.Meta(max_length=MAX_ALTERNATIVES)]


class OffloadState(msgspec.Struct, frozen=True):
    """A section whose work goes to workers: the plan, who does what, and how it goes."""

    plan: BundleId
    room: Name
    title: Text  # what is computed elsewhere, such as "layer edge_dense"
    description: Text  # what the plan promises, in a sentence of the room's
    pieces: Count  # of the plan
    live_pieces: Count
    enough: bool  # whether the live workers' pieces suffice
    spare_workers: Count  # how many more live workers may vanish, in any combination
    workers: Annotated[dict[Id, WorkerState], msgspec.Meta(max_length=MAX_PIECES)]
    groups: Annotated[list[PieceGroup], msgspec.Meta(max_length=MAX_PIECES)] = []
    combined: Count = 0  # samples whose results were combined
    computed_here: Count = 0  # samples whose section the owner computed itself
    given_up: Count = 0  # samples without the section: a shallower exit answered
    missing: Annotated[list[Id], msgspec.Meta(max_length=MAX_PIECES)] = []  # in the last one
    gather_ms: float = 0.0  # task to enough results, smoothed
    combine_ms: float = 0.0  # smoothed
    counts: Annotated[dict[Name, Count], msgspec.Meta(max_length=64)] = {}  # the room's own
    combined_partly: Count = 0  # of `combined`: from fewer pieces than are enough
    # Of the last combination: by piece whose result was used ("": nobody's), and the accuracy that
    # was measured with these pieces, by exit.
    sources: Annotated[list[Name], msgspec.Meta(max_length=MAX_PIECES)] = []
    accuracy: Annotated[dict[ExitName, Share], msgspec.Meta(max_length=4)] = {}
    alternatives: Alternatives | None = None  # None: the room knows of none
