"""A site with its page: the real store, app and server, and a stand-in for what MQTT would tell."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_app.store import Store
from cloud_app.views import DemoAction, LinkView, NodeView
from cloud_app.web import Server, SignIn, create_app, serve
from ddnn.errors import ConfigError
from tests.answer_builder import make_answer
from tests.site_builder import BUNDLE, GAUGES, FakeDemo, FakeSite

if TYPE_CHECKING:
    from playwright.sync_api import Page

SITE = "home"
CAMERAS = BUNDLE.devices
BROKER = "127.0.0.1:1883"


def node(name: str, role: str, **fields: Any) -> NodeView:
    known = {"bundle": "b1", "version": "1.2", "last_seen_age_s": 0.5, "memory_bytes": 57_000_000}
    return NodeView(
        **{"site": SITE, "id": name, "role": role, "state": "online", **known, **fields}
    )


class HomeLive(FakeSite):
    """All are there, the edge follows commands, and time passes."""

    def __init__(self) -> None:
        cameras = [node(name, "device") for name in CAMERAS]
        counts = {"bytes_sent": 12_345}
        super().__init__([node("edge", "edge", counts=counts, gauges=GAUGES), *cameras])
        self.bundle = replace(BUNDLE, accuracy={"7": {"overall": 0.97}, "5": {"overall": 0.91}})
        self.connect(True)

    def change(self, name: str, **fields: Any) -> None:
        self.shown = [replace(n, **fields) if n.id == name else n for n in self.shown]

    def connect(self, connected: bool) -> None:
        self.broker = LinkView(connected, BROKER, 0.0, "" if connected else "Connection refused")
        self._since_s = time.monotonic()

    def read_link(self) -> LinkView:
        return replace(self.broker, for_s=time.monotonic() - self._since_s)

    def send_thresholds(self, site: str, thresholds: Mapping[str, float], revision: int) -> None:
        super().send_thresholds(site, thresholds, revision)
        self.obey()


class HomeDemo(FakeDemo):
    """Processes that live and die at once; the broker is not one of the demo's."""

    def __init__(self, live: HomeLive) -> None:
        super().__init__({"broker": True, **{n.id: True for n in live.shown}})
        self._live = live

    def control(self, action: DemoAction, node: str) -> None:
        if node == "broker":
            raise ConfigError("the broker was not started by this demo; stop it where it runs")
        super().control(action, node)
        self._live.change(node, state="online" if action == "start" else "lost")


class Home:
    """What a test changes, and the server that it may close and start again."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.store = Store(f"sqlite:///{folder}/cloud.db")
        self.live = HomeLive()
        sign_in = None
        if password:
            sign_in, _ = SignIn.open(self.store, folder, password=password)
        self._app = create_app(self.store, self.live, sign_in=sign_in)
        self.server: Server = serve(self._app, port=0)
        self.url = f"http://127.0.0.1:{self.server.port}/"

    def demo(self) -> HomeDemo:
        demo = self.live.demo = HomeDemo(self.live)
        return demo

    def answer(
        self, samples: range, *, ago_s: float = 0.0, site: str = SITE, **fields: Any
    ) -> None:
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
            "exit_trace": [("local", 1, 0.2)],
        }
        answers = [make_answer(sample=sample, **{**known, **fields}) for sample in samples]
        self.store.save([(site, answer) for answer in answers])

    def restart(self) -> None:
        self.server = serve(self._app, port=self.server.port)

    def close(self) -> None:
        self.server.close()
        self.store.close()


def wait_for_states(page: Page, home: Home, count: int) -> None:
    """Until the server has sent so many more states, which a page that is open has shown."""
    wanted, until_s = home.live.asked + count + 1, time.monotonic() + 30
    while home.live.asked < wanted:
        assert time.monotonic() < until_s, "the page listens no more"
        page.wait_for_timeout(50)
