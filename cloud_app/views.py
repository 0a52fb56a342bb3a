"""The interfaces by which the page reads and controls a running site, and their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ddnn.exits.drift import Deviation, Reference
from ddnn.exits.manifest import Manifest, SweepRow, find_swept_accuracy
from ddnn.exits.measure import compute_uplink_bytes, find_front
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.train_messages import TrainState

DemoAction = Literal["kill", "start"]


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as its own messages report it."""

    site: str
    id: str
    role: str
    state: Literal["online", "stopped", "lost"]
    bundle: str = ""
    version: str = ""
    last_seen_age_s: float | None = None  # None: not seen since this program started
    uptime_s: float = 0.0
    memory_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    rollout: str = ""  # what it does about a bundle that is rolled out; empty while that is nothing


@dataclass(frozen=True, slots=True)
class OffloadView:
    """A section that `node` lets workers compute, as it reported `age_s` ago."""

    site: str
    node: str
    age_s: float
    state: OffloadState

    @property
    def worker_states(self) -> dict[str, int]:
        """The number of workers in each state."""
        return dict(Counter(worker.state for worker in self.state.workers.values()))


@dataclass(frozen=True, slots=True)
class TrainingView:
    """A training that `node` drives, as it reported `age_s` ago."""

    site: str
    node: str
    age_s: float
    state: TrainState


@dataclass(frozen=True, slots=True)
class LinkView:
    """The connection to the broker. While it is down, the states of the nodes are unknown."""

    connected: bool
    broker: str  # host:port
    for_s: float  # how long it has been up or down
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BundleView:
    """The bundle in use, and the bytes of one device's image, raw and as JPEG."""

    id: str
    raw_bytes: int
    jpeg_bytes: float | None = None
    labels: tuple[str, ...] = ()  # class names; without them the page shows numbers
    exits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    lead: str = ""  # the edge that decides
    thresholds: Mapping[str, float] = field(default_factory=dict)  # the bundle's own
    sweep: Sequence[SweepRow] = ()
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    edges: tuple[str, ...] = ()
    recall: Mapping[str, float] = field(default_factory=dict)  # by class name, of validation data
    majority: float | None = None
    uplink_bytes: float = 0.0  # per device, of a sample that goes to the cloud, from edges to it
    behaviour: Reference | None = None  # on validation data

    @property
    def front(self) -> list[SweepRow]:
        """The rows of the sweep that no other surpasses, cheapest first."""
        return find_front(self.sweep, self.compute_total_bytes)

    def compute_total_bytes(self, row: SweepRow) -> float:
        """Bytes per sample and device of all hops."""
        return row.bytes_per_sample_per_device + self.uplink_bytes * row.exit_share.get(
            "cloud", 0.0
        )

    @classmethod
    def of(cls, bundle: str, manifest: Manifest) -> BundleView:
        hierarchy = manifest.hierarchy
        return cls(
            bundle,
            manifest.raw_bytes,
            manifest.jpeg_bytes,
            manifest.classes,
            tuple(hierarchy.exits),
            tuple(hierarchy.devices),
            hierarchy.lead,
            manifest.thresholds,
            manifest.sweep,
            manifest.accuracy,
            tuple(group.id for group in hierarchy.edges),
            manifest.recall,
            manifest.majority,
            compute_uplink_bytes(manifest),
            manifest.behaviour,
        )

    def find_accuracy(
        self, members: Sequence[str], thresholds: Mapping[str, float] | None = None
    ) -> float | None:
        """The overall accuracy measured with exactly these devices; None: it was not measured.

        `thresholds` are the bundle's by default. Training measures others for all devices only.
        """
        if thresholds is not None and dict(thresholds) != dict(self.thresholds):
            everyone = len(members) == len(self.devices)
            return find_swept_accuracy(self.sweep, thresholds) if everyone else None
        mask = sum(1 << self.devices.index(device) for device in members if device in self.devices)
        return self.accuracy.get(str(mask), {}).get("overall")


def find_wanted(
    nodes: Sequence[NodeView], offloads: Sequence[OffloadView], bundle: BundleView
) -> set[tuple[str, str]]:
    """The nodes, as (site, id), without which a site lacks something.

    Those are the cameras and edges of the bundle, clouds, and workers that are to hold pieces.
    """
    workers = {
        (view.site, worker)
        for view in offloads
        for worker, state in view.state.workers.items()
        if state.pieces
    }
    return {
        (node.site, node.id)
        for node in nodes
        if node.id in bundle.devices
        or node.id in (*bundle.edges, bundle.lead)
        or node.role in ("cloud", "store")
        or (node.site, node.id) in workers
    }


class DemoSite(Protocol):
    """The pictures and the processes of a demo."""

    def read_views(self, sample: int) -> NDArray[np.uint8]:
        """The pictures of all cameras: uint8 [devices, height, width, 3]."""
        ...

    def read_processes(self) -> dict[str, bool]:
        """Whether each process runs."""
        ...

    def control(self, action: DemoAction, node: str) -> None:
        """Kill or start a process; DdnnError where that fails."""
        ...


class LiveSite(Protocol):
    """A running site as the page sees it."""

    def list_nodes(self) -> list[NodeView]: ...
    def read_link(self) -> LinkView: ...

    def list_offloads(self) -> list[OffloadView]:
        """The sections that workers compute now; none while the broker is away."""
        ...

    def list_trainings(self) -> list[TrainingView]:
        """The trainings of the last hour, those that run among them."""
        ...

    def read_drift(self, site: str) -> list[Deviation]:
        """How the newest samples of a site differ from validation data; none with too few."""
        ...

    def find_database_error(self) -> str:
        """Why the database cannot be written now; empty while it can."""
        ...

    def measure_inference_age_s(self) -> float | None:
        """The time since the last inference, by this process or by a node; None: none yet."""
        ...

    @property
    def bundle(self) -> BundleView: ...

    def send_thresholds(self, site: str, thresholds: Mapping[str, float], revision: int) -> None:
        """Send thresholds to the lead edge of a site; LinkError while the broker is away."""
        ...

    @property
    def demo(self) -> DemoSite | None: ...
