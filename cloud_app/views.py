"""What the page knows besides the store: nodes, link, bundle, and what it may do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ddnn.exits.manifest import Manifest, SweepRow, swept_accuracy
from ddnn.protocol.messages import OffloadState

DemoAction = Literal["kill", "start"]


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as its own messages tell it."""

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


@dataclass(frozen=True, slots=True)
class OffloadView:
    """A section whose work `node` gives to workers, as it reported `age_s` ago."""

    site: str
    node: str
    age_s: float
    state: OffloadState

    @property
    def worker_states(self) -> dict[str, int]:
        """How many workers are in each state."""
        return dict(Counter(worker.state for worker in self.state.workers.values()))


@dataclass(frozen=True, slots=True)
class LinkView:
    """The connection to the broker. While it is away nothing is known of the nodes."""

    connected: bool
    broker: str  # host:port
    for_s: float  # how long it has been so
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BundleView:
    """The bundle in use, and what a sample of one device takes without ddnn."""

    id: str
    raw_bytes: int
    jpeg_bytes: float | None = None
    labels: tuple[str, ...] = ()  # class names; without them the numbers are shown
    exits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    lead: str = ""  # the edge that decides
    thresholds: Mapping[str, float] = field(default_factory=dict)  # the bundle's own
    sweep: Sequence[SweepRow] = ()
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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
        )

    def find_accuracy(
        self, members: Sequence[str], thresholds: Mapping[str, float] | None = None
    ) -> float | None:
        """The overall accuracy measured with exactly these devices and thresholds [the bundle's].

        With other thresholds than the bundle's it was measured for all devices only.
        """
        if thresholds is not None and dict(thresholds) != dict(self.thresholds):
            everyone = len(members) == len(self.devices)
            return swept_accuracy(self.sweep, thresholds) if everyone else None
        mask = sum(1 << self.devices.index(device) for device in members if device in self.devices)
        return self.accuracy.get(str(mask), {}).get("overall")


class DemoSite(Protocol):
    """What only a demo offers: pictures, and processes to kill."""

    def read_views(self, sample: int) -> NDArray[np.uint8]:
        """uint8 [devices, height, width, 3]: what the cameras saw."""
        ...

    def read_processes(self) -> dict[str, bool]:
        """Whether each process runs."""
        ...

    def control(self, action: DemoAction, node: str) -> None:
        """DdnnError says why it cannot be done."""
        ...


class LiveSite(Protocol):
    def list_nodes(self) -> list[NodeView]: ...
    def read_link(self) -> LinkView: ...

    def list_offloads(self) -> list[OffloadView]:
        """Sections whose work goes to workers now; none while the broker is away."""
        ...

    def find_database_error(self) -> str:
        """Why answers cannot be written now; empty while they can."""
        ...

    def measure_inference_age_s(self) -> float | None:
        """Since the last real inference: of the own section, or one that answered a sample."""
        ...

    @property
    def bundle(self) -> BundleView: ...

    def send_thresholds(self, site: str, thresholds: Mapping[str, float], revision: int) -> None:
        """Command the lead edge of a site; LinkError while the broker is away."""
        ...

    @property
    def demo(self) -> DemoSite | None: ...
