"""A LiveSite of the messages that the machine receives over MQTT."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from cloud_app.demo import LocalDemoSite
from cloud_app.drift import DriftWatch
from cloud_app.recorder import Recorder
from cloud_app.registry import Registry
from cloud_app.store import Store
from cloud_app.views import BundleView, LinkView, NodeView, OffloadView, TrainingView
from ddnn.errors import LinkError
from ddnn.exits.drift import Deviation
from ddnn.exits.manifest import Manifest
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
        demo: LocalDemoSite | None = None,
    ) -> None:
        self.drift = DriftWatch(store, lambda: self.bundle, recorder.record_event, store.clock)
        self._loop, self._broker, self._registry = loop, broker, registry
        self._recorder, self._store = recorder, store
        self.bundle, self.demo = bundle, demo
        self._sending = threading.Lock()
        self._sent: dict[str, int] = {}  # by site: the newest revision that was sent

    def use_bundle(self, bundle: str, manifest: Manifest) -> None:
        """Show another bundle, to which the site has changed."""
        self.bundle = BundleView.of(bundle, manifest)

    def list_nodes(self) -> list[NodeView]:
        return self._registry.list_nodes()

    def read_link(self) -> LinkView:
        link = self._loop.link
        for_s = time.monotonic() - link.since_s
        return LinkView(link.connected, self._broker, for_s, link.reason)

    def list_offloads(self) -> list[OffloadView]:
        return self._registry.list_offloads() if self._loop.link.connected else []

    def list_trainings(self) -> list[TrainingView]:
        return self._registry.list_trainings()

    def read_drift(self, site: str) -> list[Deviation]:
        return self.drift.read(site)

    def find_database_error(self) -> str:
        return self._recorder.database_error

    def measure_inference_age_s(self) -> float | None:
        seen = [s for s in (self._loop.inferred_s, self._registry.inferred_s) if s is not None]
        return time.monotonic() - max(seen) if seen else None

    def send_thresholds(self, site: str, thresholds: Mapping[str, float], revision: int) -> None:
        by_exit: dict[ExitName, float] = {}
        for tier in ("local", "edge", "cloud"):
            if tier in thresholds:
                by_exit[tier] = thresholds[tier]
        command = Thresholds(self.bundle.id, by_exit, revision)
        with self._sending:
            # The broker retains the last one: an older one must not replace a newer one there.
            if revision >= self._sent.get(site, 0):
                topic = Topic(site, Kind.THRESHOLDS, self.bundle.lead)
                self._loop.publish(Publish(topic, command))
                self._sent[site] = revision

    def resend_thresholds(self) -> None:
        """Send the newest thresholds of each site again: broker or edge may have lost them.

        A thread of its own reads them, because the database may be slow.
        """
        threading.Thread(
            target=self._resend_thresholds, name="resend-thresholds", daemon=True
        ).start()

    def _resend_thresholds(self) -> None:
        try:
            for site in self._store.list_sites():
                for change in self._store.list_changes(site, 1):
                    if change.bundle == self.bundle.id:
                        self.send_thresholds(site, change.thresholds, change.revision)
        except LinkError as error:  # of broker or database: the next connect tries again
            log.warning("thresholds not sent again: %s", error)
