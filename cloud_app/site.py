"""What the page knows besides the store, from the machine's loop and what it heard."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from cloud_app.demo import DemoSite
from cloud_app.recorder import Recorder
from cloud_app.registry import Registry
from cloud_app.store import Store
from cloud_app.views import BundleView, LinkView, NodeView, OffloadView
from ddnn.errors import LinkError
from ddnn.protocol.machine import Publish
from ddnn.protocol.messages import ExitName, Thresholds
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.loop import Loop

log = logging.getLogger(__name__)


class MqttSite:
    """See cloud_app.views.LiveSite. Every method may be called from any thread."""

    def __init__(
        self,
        loop: Loop,
        broker: str,
        registry: Registry,
        recorder: Recorder,
        store: Store,
        bundle: BundleView,
        demo: DemoSite | None = None,
    ) -> None:
        self._loop, self._broker, self._registry = loop, broker, registry
        self._recorder, self._store = recorder, store
        self._bundle, self._demo = bundle, demo
        self._sending = threading.Lock()
        self._sent: dict[str, int] = {}  # by site, the newest revision that was commanded

    def nodes(self) -> list[NodeView]:
        return self._registry.nodes()

    def link(self) -> LinkView:
        link = self._loop.link
        for_s = time.monotonic() - link.since_s
        return LinkView(link.connected, self._broker, for_s, link.reason)

    def offloads(self) -> list[OffloadView]:
        return self._registry.offloads() if self._loop.link.connected else []

    def database_away(self) -> str:
        return self._recorder.away

    def inference_age_s(self) -> float | None:
        seen = [s for s in (self._loop.inferred_s, self._registry.inferred_s) if s is not None]
        return time.monotonic() - max(seen) if seen else None

    def bundle(self) -> BundleView:
        return self._bundle

    def send_thresholds(self, site: str, thresholds: Mapping[str, float], revision: int) -> None:
        chosen: dict[ExitName, float] = {}
        for tier in ("local", "edge", "cloud"):
            if tier in thresholds:
                chosen[tier] = thresholds[tier]
        command = Thresholds(self._bundle.id, chosen, revision)
        with self._sending:
            # Retained: an older one that comes last would be what an edge finds when it starts.
            if revision >= self._sent.get(site, 0):
                topic = Topic(site, Kind.THRESHOLDS, self._bundle.lead)
                self._loop.publish(Publish(topic, command))
                self._sent[site] = revision

    def remind(self) -> None:
        """Command again what was last applied, for a broker or an edge that has forgotten it.

        In a thread of its own, for a database may take its time.
        """
        threading.Thread(target=self._remind, name="remind", daemon=True).start()

    def _remind(self) -> None:
        try:
            for site in self._store.sites():
                for change in self._store.changes(site, 1):
                    if change.bundle == self._bundle.id:
                        self.send_thresholds(site, change.thresholds, change.revision)
        except LinkError as error:  # broker or database: at the next connect, then
            log.warning("thresholds not sent again: %s", error)

    def demo(self) -> DemoSite | None:
        return self._demo
