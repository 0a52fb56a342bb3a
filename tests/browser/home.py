"""A site with its page: the real store, app and server, and a stand-in for what MQTT would tell."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud_app.live import Act, BundleView, Demo, LinkView, NodeView
from cloud_app.store import Store
from cloud_app.web import Server, SignIn, create_app, serve
from ddnn.errors import ConfigError, LinkError
from ddnn.exits.manifest import SweepRow
from tests.answers_made import make_answer

SITE = "home"
CAMERAS = ("cam1", "cam2", "cam3")
CLASSES = ("car", "bus", "person")
BROKER = "127.0.0.1:1883"
BUNDLE = BundleView(
    id="b1",
    raw_bytes=3072,
    jpeg_bytes=960.0,
    labels=CLASSES,
    exits=("local", "edge", "cloud"),
    devices=CAMERAS,
    lead="edge",
    thresholds={"local": 0.3, "edge": 0.5},
    sweep=[
        SweepRow(
            {"local": local, "edge": edge},
            0.95 - local / 10,
            {"local": local, "edge": (1 - local) * edge, "cloud": (1 - local) * (1 - edge)},
            40 - 30 * local,
        )
        for local, edge in itertools.product(np.linspace(0, 1, 11), np.linspace(0, 1, 11))
    ],
    accuracy={"7": {"overall": 0.97}, "5": {"overall": 0.91}},
)


def node(name: str, role: str, **fields: Any) -> NodeView:
    known = {"bundle": "b1", "version": "0.1.0", "last_seen_age_s": 0.5, "memory_bytes": 57_000_000}
    return NodeView(**{"site": SITE, "id": name, "role": role, "state": "online", **known, **fields})


class MadeDemo:
    """Processes that live and die at once, and pictures of noise."""

    def __init__(self, live: MadeLive) -> None:
        self._live = live
        self.alive = {"broker": True, **{node.id: True for node in live.known}}

    def views(self, sample: int) -> NDArray[np.uint8]:
        shape = (len(CAMERAS), 32, 32, 3)
        return np.random.default_rng(sample).integers(0, 256, shape, np.uint8)

    def nodes(self) -> dict[str, bool]:
        return dict(self.alive)

    def act(self, what: Act, node: str) -> None:
        if node == "broker":
            raise ConfigError("the broker was not started by this demo; stop it where it runs")
        self.alive[node] = what == "start"
        self._live.change(node, state="online" if what == "start" else "lost")


class MadeLive:
    def __init__(self) -> None:
        self.known = [node("cloud", "cloud"), node("edge", "edge", counts={"bytes_sent": 12_345})]
        self.known += [node(name, "device") for name in CAMERAS]
        self.connected = True
        self.away = ""
        self.view = BUNDLE
        self.made_demo: MadeDemo | None = None
        self._since_s = time.monotonic()
        self.use({"local": 0.3, "edge": 0.5}, 0)

    def change(self, name: str, **fields: Any) -> None:
        self.known = [replace(n, **fields) if n.id == name else n for n in self.known]

    def use(self, thresholds: Mapping[str, float], revision: int) -> None:
        """The edge tells which thresholds it uses."""
        gauges = {f"threshold_{exit_}": value for exit_, value in thresholds.items()}
        self.change("edge", gauges={**gauges, "threshold_revision": float(revision)})

    def connect(self, connected: bool) -> None:
        self.connected, self._since_s = connected, time.monotonic()

    def nodes(self) -> list[NodeView]:
        return self.known

    def link(self) -> LinkView:
        reason = "" if self.connected else "Connection refused"
        return LinkView(self.connected, BROKER, time.monotonic() - self._since_s, reason)

    def database_away(self) -> str:
        return self.away

    def inference_age_s(self) -> float | None:
        return 0.1

    def bundle(self) -> BundleView:
        return self.view

    def send_thresholds(self, site: str, thresholds: Mapping[str, float], revision: int) -> None:
        if not self.connected:
            raise LinkError(f"no connection to the broker {BROKER}")
        self.use(thresholds, revision)

    def demo(self) -> Demo | None:
        return self.made_demo


class Home:
    """What a test changes, and the server that it may close and start again."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.store = Store(f"sqlite:///{folder}/cloud.db")
        self.live = MadeLive()
        sign_in = None
        if password:
            sign_in, _ = SignIn.open(self.store, folder, password=password)
        self._app = create_app(self.store, self.live, sign_in=sign_in)
        self.server: Server = serve(self._app, port=0)
        self.url = f"http://127.0.0.1:{self.server.port}/"

    def demo(self) -> MadeDemo:
        self.live.made_demo = MadeDemo(self.live)
        return self.live.made_demo

    def answer(self, samples: range, *, ago_s: float = 0.0, site: str = SITE, **fields: Any) -> None:
        """Samples are answered now; right, and by all cameras, unless it is said otherwise."""
        at_s = time.time() - ago_s
        known: dict[str, Any] = {
            "exit": "local",
            "label": 1,
            "truth": 1,
            "probabilities": [0.05, 0.9, 0.05],
            "eta": 0.2,
            "members": list(CAMERAS),
            "missing": [],
            "quality": "full",
            "expected_accuracy": 0.97,
            "bundle": "b1",
            "captured_at_s": at_s - 0.012,
            "answered_at_s": at_s,
            "latency_s": 0.012,
            "payload_bytes": 120,
            "wire_bytes": 600,
            "votes": {"cam1": (1, 0.9), "cam2": (0, 0.6), "cam3": (1, 0.5)},
            "passed": [("local", 1, 0.2)],
        }
        answers = [make_answer(sample=sample, **{**known, **fields}) for sample in samples]
        self.store.save([(site, answer) for answer in answers])

    def restart(self) -> None:
        self.server = serve(self._app, port=self.server.port)

    def close(self) -> None:
        self.server.close()
        self.store.close()
