"""What the API takes and gives: one struct each, from which the OpenAPI document is made.

All numbers are raw, seconds and bytes; null: it is not known.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import msgspec

from cloud_app.store import Bucket, Change, NodeEvent, Record, Summary
from cloud_app.views import BundleView, LinkView, NodeView, OffloadView
from cloud_app.whatif import WhatIf
from ddnn.exits.manifest import SweepRow
from ddnn.protocol.messages import Id, OffloadState, Share

MAX_SAMPLE = 2**53
MAX_MINUTES = 366 * 24 * 60
MAX_ANSWERS = 1000
MAX_EVENTS = 1000
Sample = Annotated[int, msgspec.Meta(ge=0, le=MAX_SAMPLE)]


class Problem(msgspec.Struct, frozen=True):
    """Why a request was refused, and what to do about it."""

    error: str


# ------------------------------------------------------------------ questions


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameter."""


class OfSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`site` absent: all sites; where it must be one, the only one there is."""

    site: Id | None = None


class OfSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sample by its number."""

    sample: Sample


class OfNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node by its id."""

    node: Id


class OfAnswers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Samples of a site by number."""

    site: Id = "home"
    first: Sample = 0
    last: Sample = MAX_SAMPLE


class OfSeries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest minutes."""

    site: Id | None = None
    minutes: Annotated[int, msgspec.Meta(ge=1, le=MAX_MINUTES)] = 60


class OfEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest n."""

    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_EVENTS)] = 100


class OfWhatIf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds to look at; one that is absent is as it is in use."""

    site: Id | None = None
    local: Share | None = None
    edge: Share | None = None


# ------------------------------------------------------------------- commands

Chosen = Annotated[dict[str, Share], msgspec.Meta(max_length=4)]


class ApplyThresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds for a site's edge, one for each exit but the deepest."""

    site: Id
    thresholds: Chosen


class RevertThresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Back to the thresholds before the newest change."""

    site: Id


class GiveLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person says a sample shows; null takes it back."""

    site: Id
    sample: Sample
    label: Annotated[int, msgspec.Meta(ge=0, lt=2**16)] | None


class GivePassword(msgspec.Struct, frozen=True):
    """The form of the sign-in."""

    password: Annotated[str, msgspec.Meta(max_length=1000)]
    csrf: str


# -------------------------------------------------------------------- replies


class Bundle(msgspec.Struct, frozen=True):
    """The bundle in use; bytes are of one image of one device."""

    id: str
    labels: tuple[str, ...]
    exits: tuple[str, ...]
    devices: tuple[str, ...]
    raw_bytes: int
    jpeg_bytes: float | None

    @classmethod
    def of(cls, view: BundleView) -> Bundle:
        return cls(view.id, view.labels, view.exits, view.devices, view.raw_bytes, view.jpeg_bytes)


class Node(msgspec.Struct, frozen=True):
    """A node as its own messages tell it; `wanted`: the bundle has a place for it."""

    site: str
    id: str
    role: str
    state: Literal["online", "stopped", "lost"]
    bundle: str
    version: str
    last_seen_age_s: float | None
    uptime_s: float
    memory_bytes: int
    counts: dict[str, int]
    gauges: dict[str, float]
    wanted: bool

    @classmethod
    def of(cls, view: NodeView, bundle: BundleView) -> Node:
        wanted = view.id in (*bundle.devices, bundle.lead)
        return cls(**dataclasses.asdict(view), wanted=wanted)


class Offload(msgspec.Struct, frozen=True):
    """A section whose work a node gives to workers, as it reported `age_s` ago."""

    site: str
    node: str
    age_s: float
    worker_states: dict[str, int]  # how many workers are in each
    state: OffloadState

    @classmethod
    def of(cls, view: OffloadView, most: int | None = None) -> Offload:
        """With at most so many workers, those in trouble first."""
        state = view.state
        if most is not None and len(state.workers) > most:
            workers = sorted(state.workers.items(), key=lambda of: of[1].state == "live")
            state = msgspec.structs.replace(state, workers=dict(workers[:most]))
        return cls(view.site, view.node, view.age_s, view.worker_states, state)


class ExpectedNow(msgspec.Struct, frozen=True):
    """What answers are worth with the devices that are there, as the bundle measured it."""

    members: list[str]
    missing: list[str]
    accuracy: float | None


class InUse(msgspec.Struct, frozen=True):
    """Thresholds: as the site's edge reports them, the bundle's own, and whose turn it is."""

    in_use: dict[str, float] | None
    own: dict[str, float]
    revision: int | None


class DemoState(msgspec.Struct, frozen=True):
    """Which processes of the demo run."""

    nodes: dict[str, bool]


class Now(msgspec.Struct, frozen=True):
    """Everything that the page shows, to any viewer."""

    at_s: float
    version: str
    bundle: Bundle
    link: LinkView
    database: str  # why it is away, empty while it is there
    nodes: list[Node]
    offloads: list[Offload]  # of very many workers the first
    summary: Summary | None
    quiet_s: float | None  # since the last answer came, by this clock; null: there is none
    expected_now: ExpectedNow
    answers: list[Record]
    events: list[NodeEvent]
    thresholds: InUse
    demo: DemoState | None
    sites: list[str]


class Viewer(msgspec.Struct, frozen=True):
    """What differs from one who looks to the next."""

    signed_in: bool
    csrf: str  # for the header X-CSRF-Token; empty with a token of the API, which only reads


class State(Now, frozen=True):
    """Everything that the page shows now."""

    signed_in: bool
    csrf: str


class SummaryNow(msgspec.Struct, frozen=True):
    """The numbers, and when they were so."""

    at_s: float
    site: str | None
    summary: Summary


class Series(msgspec.Struct, frozen=True):
    """Buckets of equal length, the oldest first; the newest is not over yet."""

    at_s: float
    site: str | None
    step_s: int
    buckets: list[Bucket]


class Sweep(msgspec.Struct, frozen=True):
    """What a choice of thresholds gave on the bundle's validation data."""

    thresholds: dict[str, float]
    accuracy: float
    exit_share: dict[str, float]
    bytes: float  # per sample and device

    @classmethod
    def of(cls, row: SweepRow) -> Sweep:
        return cls(row.thresholds, row.accuracy, row.exit_share, row.bytes_per_sample_per_device)


class ThresholdsNow(msgspec.Struct, frozen=True):
    """The thresholds of a site, what others would give, and who changed them."""

    site: str
    bundle: str
    in_use: dict[str, float] | None
    own: dict[str, float]
    revision: int | None
    sweep: list[Sweep]
    changes: list[Change]


class WhatIfNow(msgspec.Struct, frozen=True):
    """Thresholds that are compared with those in use."""

    site: str
    thresholds: dict[str, float]
    sweep: Sweep | None  # the nearest row; None: the bundle has no sweep
    recorded: WhatIf
    now: WhatIfInUse


class WhatIfInUse(msgspec.Struct, frozen=True):
    """The same for the thresholds in use, or the bundle's own where these are not known."""

    thresholds: dict[str, float]
    sweep: Sweep | None
    recorded: WhatIf


class Ready(msgspec.Struct, frozen=True):
    """Broker and database are there, and a real inference was made lately."""

    inference_age_s: float
