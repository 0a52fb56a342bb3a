"""The messages of the API, one struct each, from which the OpenAPI document is made.

All numbers are raw, in seconds and bytes; null stands for an unknown value.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import msgspec

from cloud_app.store import Bucket, Change, NodeEvent, Record, Summary
from cloud_app.views import BundleView, LinkView, NodeView, OffloadView, TrainingView
from cloud_app.whatif import Audit, WhatIf
from ddnn.exits.drift import Deviation
from ddnn.exits.manifest import SweepRow
from ddnn.protocol.messages import Id, Share
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.train_messages import TrainState

MAX_SAMPLE = 2**53
MAX_MINUTES = 366 * 24 * 60
MAX_ANSWERS = 1000
MAX_EVENTS = 1000
Sample = Annotated[int, msgspec.Meta(ge=0, le=MAX_SAMPLE)]


class Problem(msgspec.Struct, frozen=True):
    """Why a request was refused, and what to do about it."""

    error: str


# ------------------------------------------------------------------ questions


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameter."""


class SiteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without `site`: all sites. A route for one site then takes the only one that exists."""

    site: Id | None = None


class SampleQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sample by its number."""

    sample: Sample


class NodeQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node by its id."""

    node: Id


class AnswersQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Samples of a site by number."""

    site: Id = "home"
    first: Sample = 0
    last: Sample = MAX_SAMPLE


class SeriesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest minutes."""

    site: Id | None = None
    minutes: Annotated[int, msgspec.Meta(ge=1, le=MAX_MINUTES)] = 60


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The n newest events."""

    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_EVENTS)] = 100


class WhatIfQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds to try; an exit that is absent keeps the threshold in use."""

    site: Id | None = None
    local: Share | None = None
    edge: Share | None = None


# ------------------------------------------------------------------- commands

ThresholdByExit = Annotated[dict[str, Share], msgspec.Meta(max_length=4)]


class ApplyThresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds for a site's edge, one for each exit but the deepest."""

    site: Id
    thresholds: ThresholdByExit


class RevertThresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Restores the thresholds before the newest change."""

    site: Id


class GiveLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The class that a person gives a sample; null takes it back."""

    site: Id
    sample: Sample
    label: Annotated[int, msgspec.Meta(ge=0, lt=2**16)] | None


class GivePassword(msgspec.Struct, frozen=True):
    """The form of the sign-in."""

    password: Annotated[str, msgspec.Meta(max_length=1000)]
    csrf: str


# -------------------------------------------------------------------- replies


class Bundle(msgspec.Struct, frozen=True):
    """The bundle in use; bytes are those of one image of one device. lead: the edge that decides.

    On its validation data, `recall` is the share of each class's samples that are answered with it,
    and `majority` the accuracy of always naming the most frequent class.
    """

    id: str
    labels: tuple[str, ...]
    exits: tuple[str, ...]
    devices: tuple[str, ...]
    lead: str
    raw_bytes: int
    jpeg_bytes: float | None
    recall: dict[str, float]
    majority: float | None

    @classmethod
    def of(cls, view: BundleView) -> Bundle:
        return cls(
            view.id,
            view.labels,
            view.exits,
            view.devices,
            view.lead,
            view.raw_bytes,
            view.jpeg_bytes,
            dict(view.recall),
            view.majority,
        )


class Node(msgspec.Struct, frozen=True):
    """A node as its own messages report it; `wanted`: the bundle has a place for it."""

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
    rollout: str  # what it does about a bundle that is rolled out
    wanted: bool

    @classmethod
    def of(cls, view: NodeView, bundle: BundleView) -> Node:
        wanted = view.id in (*bundle.devices, *bundle.edges, bundle.lead)
        return cls(**dataclasses.asdict(view), wanted=wanted)


class Offload(msgspec.Struct, frozen=True):
    """A section that a node lets workers compute, as it reported `age_s` ago."""

    site: str
    node: str
    age_s: float
    worker_states: dict[str, int]  # number of workers in each state
    state: OffloadState

    @classmethod
    def of(cls, view: OffloadView, max_workers: int | None = None) -> Offload:
        """With at most `max_workers` workers; those that are not live come first."""
        state = view.state
        if max_workers is not None and len(state.workers) > max_workers:
            workers = sorted(state.workers.items(), key=lambda item: item[1].state == "live")
            state = msgspec.structs.replace(state, workers=dict(workers[:max_workers]))
        return cls(view.site, view.node, view.age_s, view.worker_states, state)


class Training(msgspec.Struct, frozen=True):
    """A training that a node drives, as it reported `age_s` ago."""

    site: str
    node: str
    age_s: float
    state: TrainState

    @classmethod
    def of(cls, view: TrainingView, most: int | None = None) -> Training:
        """With at most so many places and entries of the timeline, the newest of these."""
        state = view.state
        if most is not None:
            state = msgspec.structs.replace(
                state, places=state.places[:most], timeline=state.timeline[-most:]
            )
        return cls(view.site, view.node, view.age_s, state)


class ExpectedNow(msgspec.Struct, frozen=True):
    """The accuracy that the bundle measured with exactly the devices that are online."""

    members: list[str]
    missing: list[str]
    accuracy: float | None


class ThresholdState(msgspec.Struct, frozen=True):
    """The thresholds that the site's edge reports with their revision, and the bundle's own."""

    in_use: dict[str, float] | None
    own: dict[str, float]
    revision: int | None
    audit_share: float | None = None  # in use at the edge


class DemoState(msgspec.Struct, frozen=True):
    """Whether each process of the demo runs."""

    nodes: dict[str, bool]


class PageState(msgspec.Struct, frozen=True):
    """The part of the page's state that is the same for all viewers."""

    at_s: float
    version: str
    bundle: Bundle
    link: LinkView
    database: str  # why it cannot be used; empty while it can
    nodes: list[Node]
    offloads: list[Offload]  # each with a bounded number of workers
    trainings: list[Training]  # each with a bounded number of nodes
    summary: Summary | None
    quiet_s: float | None  # since the last answer arrived, by this clock; null: no answer
    expected_now: ExpectedNow
    answers: list[Record]
    events: list[NodeEvent]
    thresholds: ThresholdState
    drift: list[Deviation]  # of one site, against validation data; empty with too few samples
    demo: DemoState | None
    sites: list[str]
    nodes_hidden: int  # so many more are known than `nodes` holds


class Viewer(msgspec.Struct, frozen=True):
    """The part of the page's state that differs from viewer to viewer."""

    signed_in: bool
    csrf: str  # for the header X-CSRF-Token; empty for a machine, which only reads


class State(PageState, frozen=True):
    """Everything that the page shows now."""

    signed_in: bool
    csrf: str


class SummaryNow(msgspec.Struct, frozen=True):
    """The summary, and when it was made."""

    at_s: float
    site: str | None
    summary: Summary


class Series(msgspec.Struct, frozen=True):
    """Buckets of equal length, the oldest first; the newest one is still growing."""

    at_s: float
    site: str | None
    step_s: int
    buckets: list[Bucket]


class Sweep(msgspec.Struct, frozen=True):
    """The result of a choice of thresholds on the bundle's validation data."""

    thresholds: dict[str, float]
    accuracy: float
    exit_share: dict[str, float]
    bytes: float  # per sample and device

    @classmethod
    def of(cls, row: SweepRow) -> Sweep:
        return cls(row.thresholds, row.accuracy, row.exit_share, row.bytes_per_sample_per_device)


class FrontRow(msgspec.Struct, frozen=True):
    """Thresholds that no others of the sweep surpass in accuracy with as few bytes.

    total_bytes: per sample and device, with a device's part of what the edges send to the cloud
    """

    thresholds: dict[str, float]
    accuracy: float
    exit_share: dict[str, float]
    bytes: float
    total_bytes: float


class ThresholdsNow(msgspec.Struct, frozen=True):
    """The thresholds of a site, the results of other thresholds, and the changes."""

    site: str
    bundle: str
    in_use: dict[str, float] | None
    own: dict[str, float]
    revision: int | None
    sweep: list[Sweep]
    front: list[FrontRow]
    changes: list[Change]


class WhatIfNow(msgspec.Struct, frozen=True):
    """The results of the thresholds to try, and in `now` those of the thresholds in use."""

    site: str
    thresholds: dict[str, float]
    sweep: Sweep | None  # the nearest row; None: the bundle has no sweep
    recorded: WhatIf
    now: ThresholdEvaluation  # in use, or the bundle's own where those in use are unknown
    now_total_bytes: float | None  # of the nearest row, as in FrontRow
    audit: Audit


class ThresholdEvaluation(msgspec.Struct, frozen=True):
    """The results of one choice of thresholds."""

    thresholds: dict[str, float]
    sweep: Sweep | None
    recorded: WhatIf


class Ready(msgspec.Struct, frozen=True):
    """Broker and database can be used, and a real inference was made lately."""

    inference_age_s: float
