"""What the page knows besides the store: a LiveSite whose parts a test changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud_app.views import BundleView, DemoAction, LinkView, NodeView, OffloadView, TrainingView
from ddnn.errors import DdnnError, LinkError
from ddnn.exits.drift import Deviation
from ddnn.exits.manifest import SweepRow
from ddnn.protocol.offload_state import OffloadState, PieceGroup, WorkerState
from ddnn.protocol.train_messages import TrainEntry, TrainPlace, TrainState

GAUGES = {"threshold_local": 0.3, "threshold_edge": 0.5, "threshold_revision": 0.0}
NODES = [
    NodeView(
        "home",
        "edge",
        "edge",
        "online",
        "b1",
        "1.2",
        0.4,
        60.0,
        96_000_000,
        {"bytes_sent": 12_345, "scores_late": 2, "messages_sent": 7},
        GAUGES,
    ),
    NodeView("home", "cam1", "device", "online", "b1", "1.2", 0.5, 60.0, 50_000_000),
    NodeView("home", "cam2", "device", "lost", "b1", "1.2", 75.0),
    NodeView("home", "cam3", "device", "stopped"),
]
SWEEP = [
    SweepRow({"local": 0.0, "edge": 0.5}, 0.95, {"local": 0.0, "edge": 0.5, "cloud": 0.5}, 112.0),
    SweepRow({"local": 0.5, "edge": 0.5}, 0.93, {"local": 0.5, "edge": 0.25, "cloud": 0.25}, 62.0),
    SweepRow({"local": 1.0, "edge": 0.5}, 0.80, {"local": 1.0, "edge": 0.0, "cloud": 0.0}, 12.0),
]
BUNDLE = BundleView(
    "b1",
    3072,
    960.0,
    ("car", "bus", "person"),
    ("local", "edge", "cloud"),
    ("cam1", "cam2", "cam3"),
    "edge",
    {"local": 0.3, "edge": 0.5},
    SWEEP,
    {"7": {"overall": 0.97}, "1": {"overall": 0.7}},
)


def make_offload(*states: Any, **fields: Any) -> OffloadState:
    """A layer in six pieces, four of which suffice; one for each worker, in these states."""
    counts: dict[str, Any] = {"answered": 100, "used": 90, "late": 10, "latency_ms": 4.0}
    workers = {
        f"worker{i + 1}": WorkerState(state, [i], missed=i, **counts)
        for i, state in enumerate(states or ["live"] * 6)
    }
    missing = fields.get("missing", [])
    sources = [
        name if worker.state == "live" and name not in missing else ""
        for name, worker in workers.items()
    ]
    live = sum(worker.state == "live" for worker in workers.values())
    known: dict[str, Any] = {
        "plan": "p1",
        "room": "coding",
        "title": "layer edge_dense",
        "description": "6 shards on 6 workers. Any 4 suffice: any 2 of 6 workers may vanish.",
        "pieces": 6,
        "live_pieces": live,
        "enough": live >= 4,
        "spare_workers": max(0, live - 4),
        "workers": workers,
        "groups": [PieceGroup("data", 0, 4), PieceGroup("parity", 4, 6)],
        "combined": 1234,
        "computed_here": 5,
        "given_up": 1,
        "gather_ms": 6.25,
        "combine_ms": 0.125,
        "sources": sources,
    }
    return OffloadState(**{**known, **fields})


def make_training(**fields: Any) -> TrainState:
    """A training over three devices, 120 of 400 batches old."""
    known: dict[str, Any] = {
        "run": "mlp-7",
        "state": "RUNNING",
        "term": 3,
        "batches": 120,
        "end": 400,
        "version": 120,
        "copied": 100,
        "chain_every": 10,
        "global_every": 50,
        "loss": 1.25,
        "accuracy": 0.5,
        "batch_s": 0.2,
        "failures": 1,
        "workers": 2,
        "places": [
            TrainPlace("central", 0, 2, 0.18, 0.1),
            TrainPlace("trainer1", 2, 7, 0.1, 0.5),
            TrainPlace("trainer2", 7, 8),
        ],
        "timeline": [
            TrainEntry(1000.0, 0, "layout", "central [0, 4), trainer1 [4, 8)"),
            TrainEntry(1030.0, 90, "restart", "trainer3 is lost"),
            TrainEntry(1031.5, 90, "advance", "the first batch that is new in this term"),
        ],
    }
    return TrainState(**{**known, **fields})


@dataclass
class FakeDemo:
    """Three cameras, and processes that only have names."""

    alive: dict[str, bool] = field(default_factory=lambda: {"edge": True, "cam1": True})

    def read_views(self, sample: int) -> NDArray[np.uint8]:
        return np.full((3, 4, 5, 3), sample % 256, np.uint8)

    def read_processes(self) -> dict[str, bool]:
        return dict(self.alive)

    def control(self, action: DemoAction, node: str) -> None:
        if self.alive[node] == (action == "start"):
            raise DdnnError(f"{node} is so already")
        self.alive[node] = action == "start"


@dataclass
class FakeSite:
    """See cloud_app.views.LiveSite; `sent` is what it was to command."""

    shown: list[NodeView] = field(default_factory=lambda: list(NODES))
    offloaded: list[OffloadView] = field(default_factory=list)
    trainings: list[TrainingView] = field(default_factory=list)
    drift: list[Deviation] = field(default_factory=list)
    broker: LinkView = field(default_factory=lambda: LinkView(True, "broker:1883", 60.0))
    away: str = ""
    inferred_s: float | None = 1.0
    bundle: BundleView = BUNDLE
    demo: FakeDemo | None = None
    sent: list[tuple[str, dict[str, float], int]] = field(default_factory=list)
    asked: int = 0  # how often for the nodes

    def list_nodes(self) -> list[NodeView]:
        self.asked += 1
        return list(self.shown)

    def read_link(self) -> LinkView:
        return self.broker

    def list_offloads(self) -> list[OffloadView]:
        return list(self.offloaded) if self.read_link().connected else []

    def list_trainings(self) -> list[TrainingView]:
        return list(self.trainings)

    def read_drift(self, site: str) -> list[Deviation]:
        return list(self.drift)

    def find_database_error(self) -> str:
        return self.away

    def measure_inference_age_s(self) -> float | None:
        return self.inferred_s

    def send_thresholds(self, site: str, thresholds: Mapping[str, float], revision: int) -> None:
        if not self.broker.connected:
            raise LinkError("no broker")
        self.sent.append((site, dict(thresholds), revision))

    def obey(self) -> None:
        """The edge uses and reports what was sent last."""
        _, thresholds, revision = self.sent[-1]
        gauges = {f"threshold_{tier}": t for tier, t in thresholds.items()}
        gauges["threshold_revision"] = float(revision)
        self.shown[0] = replace(self.shown[0], gauges=gauges)

    def lose_broker(self) -> None:
        self.broker = LinkView(False, "broker:1883", 3.0, "connection refused")
