"""Broker, cloud, dashboard, edges, devices and workers as processes of this machine."""

from __future__ import annotations

import math
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.adapters import broker as brokers
from ddnn.core.ids import tick_of
from ddnn.exits.hierarchy import CLOUD
from ddnn.local_site.broker_process import BROKER, OWN_BROKER, start_broker
from ddnn.local_site.control import Control
from ddnn.local_site.watcher import SITE, Watcher
from ddnn.protocol.messages import Answer, Thresholds
from ddnn.runtime.answer_log import read_answers
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.frame_order import FrameOrder, write_order

if TYPE_CHECKING:
    from ddnn.exits.manifest import Manifest

DASHBOARD = "dashboard"  # a process of its own, so that the page lives on when the cloud is killed
READY_S = 30.0
LEAD_S = 0.5  # from the choice of the first sample to its capture
STORED_TIMEOUT_S = 5.0
FOLLOW_S = 2.0  # the longest time that a camera takes to follow a command
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


@dataclass(slots=True)
class SiteConfig:
    """What a site runs.

    frames:     directory of the cameras' frames, see device_app's source frames:DIR
    labels:     int [samples], the true class of each frame
    plan:       directory of the plan by which workers compute a layer of `edge`
    thresholds: command that the lead edge receives, retained
    audit_share: of the samples that the local exit is sure of and that go up all the same
    """

    manifest: Manifest
    bundle: Path
    frames: Path
    labels: NDArray[np.int32]
    plan: Path | None = None
    edge: str = ""
    workers: list[str] = field(default_factory=list)
    thresholds: Thresholds | None = None
    audit_share: float = 0.0

    @property
    def nodes(self) -> list[str]:
        """All nodes in the order in which a site starts them."""
        hierarchy = self.manifest.hierarchy
        edges = [group.id for group in hierarchy.edges]
        return [BROKER, DASHBOARD, CLOUD, *edges, *self.workers, *hierarchy.devices]


class StoredAnswer(msgspec.Struct, frozen=True):
    """A sample in the cloud's database."""

    answer: Answer
    first_answered_at_s: float


class Site:
    """The processes of a site; `close` ends all of them."""

    def __init__(
        self,
        config: SiteConfig,
        kind: brokers.Kind,
        state: Path,
        *,
        rate_hz: float = 10.0,
        deadline_s: float = 1.0,
        window_s: float = 0.12,
        broker_port: int | None = None,
        http_port: int,
        seed: int | None = None,
    ) -> None:
        """state: directory of logs, database and answers that were not delivered

        seed: of the order in which the cameras show the frames from the sample on that
        `choose_first_sample` returns; without it, sample t shows frame t modulo their number
        """
        self.config, self.kind, self.state = config, kind, state
        self.rate_hz, self.deadline_s, self.window_s = rate_hz, deadline_s, window_s
        self.port = broker_port or brokers.free_port()
        self.http_port, self.seed = http_port, seed
        self.ports: dict[str, int] = {}  # by node: another port by which it reaches the broker
        self.variables: dict[str, dict[str, str]] = {}  # by node: more of its environment
        self.page = f"http://127.0.0.1:{http_port}/"
        self.fleet = Fleet(state / "logs")
        self.control = Control(self.fleet, frozenset({DASHBOARD}))
        self.frames = config.frames if seed is None else state / "frames"
        self._order = FrameOrder(self.frames, len(config.labels))
        lead = config.manifest.hierarchy.lead
        self.watcher = Watcher(self.port, self._mqtt_version, lead, config.thresholds)

    @property
    def _mqtt_version(self) -> str:
        return "5" if self.kind == "mosquitto" else "3.1.1"

    def start(self) -> None:
        """Start everything; returns once all nodes are online.

        Raises DdnnError with the last line of its log where a node does not come up.
        """
        config, hierarchy = self.config, self.config.manifest.hierarchy
        if self.frames != config.frames:  # several sites may use those, each in its own order
            self.frames.mkdir(parents=True)
            for name in ("images.npy", "view_labels.npy"):
                (self.frames / name).symlink_to((config.frames / name).resolve())
        start_broker(self.fleet, self.kind, self.port, self.state)
        self.watcher.start()
        database = ("--database", f"sqlite:///{self.state / 'site.db'}")
        page = ("--serve", "page", "--http-port", str(self.http_port), "--sign-in", "off")
        control = {"DDNN_DEMO_CONTROL": self.control.url}
        frames = ("--demo-frames", str(self.frames))
        self.start_app(DASHBOARD, "cloud_app", *page, *frames, *database, env=control)
        self.start_app(CLOUD, "cloud_app", "--serve", "node", *database)
        plan = ("--plan", str(config.plan))
        for group in hierarchy.edges:
            offload = ("--redundancy", "on", *plan) if group.id == config.edge else ()
            audit = ("--audit-share", str(config.audit_share))
            self.start_app(group.id, "edge_app", *audit, *offload)
        for worker in config.workers:
            self.start_app(worker, "device_app", "--lend", "on", *plan)
        if config.workers:  # before the first sample
            self.watcher.wait_for(self.fleet, [config.edge, *config.workers], READY_S)
            self.watcher.wait_for_pieces(READY_S)
        camera = ("--source", f"frames:{self.frames}", "--rate-hz", str(self.rate_hz))
        for device in hierarchy.devices:
            self.start_app(device, "device_app", *camera)
        self.watcher.wait_for(self.fleet, self.fleet.nodes[1:], READY_S)

    def start_app(
        self, node: str, module: str, *more: str, env: Mapping[str, str] | None = None
    ) -> None:
        """Start `python -m module` as `node`, with the keys of all nodes and `more`."""
        keys = {
            "node": node,
            "site": SITE,
            "bundle": self.config.bundle,
            "state": self.state,
            "broker-port": self.ports.get(node, self.port),
            "mqtt": self._mqtt_version,
            "deadline-s": self.deadline_s,
            "window-s": self.window_s,
            "stats-every-s": 1,
        }
        flags = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", module, *flags, *more]
        self.fleet.start(
            node,
            command,
            {**ONE_THREAD, **OWN_BROKER, **self.variables.get(node, {}), **(env or {})},
        )

    def tick(self, later_s: float = 0.0) -> int:
        """The sample that is being captured now, or `later_s` from now."""
        return tick_of(time.time() + later_s, 1 / self.rate_hz)

    def choose_first_sample(self) -> int:
        """The sample with which a run begins, a while from now; once per site where it has a
        seed."""
        first = self.tick(LEAD_S) + 1
        if self.seed is not None:
            write_order(self.frames, first, self.seed)
        return first

    def frame(self, sample: int) -> int:
        """The frame that the cameras show at this sample."""
        return self._order.find_frame(sample)

    def is_expected(self, sample: int) -> bool:
        """Whether the cameras have taken this sample for certain: no pace sheds it."""
        return self.watcher.pace.is_expected(sample, math.ceil(FOLLOW_S * self.rate_hz))

    def list_stored(self, samples: range) -> list[StoredAnswer]:
        """What the cloud's database holds of these samples; what came before the dashboard went
        away where it does."""
        found: list[StoredAnswer] = []
        first = samples.start
        while first < samples.stop:
            query = f"api/v1/answers?site={SITE}&first={first}&last={samples.stop - 1}"
            try:
                with _DIRECT.open(self.page + query, timeout=STORED_TIMEOUT_S) as response:
                    page = msgspec.json.decode(response.read(), type=list[StoredAnswer])
            except OSError:
                break
            if not page:
                break
            found += page
            first = page[-1].answer.sample + 1
        return found

    def list_spooled(self) -> list[Answer]:
        """The answers that nodes keep on their disks because they were not delivered."""
        return [a for file in self.state.glob("*.answers") for a in read_answers(file)]

    def close(self) -> None:
        try:
            self.watcher.close()
            self.control.close()
        finally:  # an interrupt leaves no process running
            self.fleet.close()
