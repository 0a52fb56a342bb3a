"""Wires the cloud's machine to its section, the store, the page and a broker connection."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import msgspec

from cloud_app.recorder import Recorder
from cloud_app.registry import Registry
from cloud_app.store import Store
from cloud_app.web import BundleView, create_app, serve
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.exits.cloud_node import CloudNode
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.bundle import load_bundle
from ddnn.runtime.loop import Identity, Loop
from ddnn.runtime.service import ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings

log = logging.getLogger(__name__)


class CloudSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of cloud_app."""

    node: Annotated[str, msgspec.Meta(description="Id of this node.")] = "cloud"
    site: Annotated[str, msgspec.Meta(description="Id of the site; all: every site.")] = "home"
    database: Annotated[
        str, msgspec.Meta(description="SQLAlchemy URL; by default SQLite in --state.")
    ] = ""
    http_host: Annotated[str, msgspec.Meta(description="Where the page listens.")] = "127.0.0.1"
    http_port: Annotated[
        int, msgspec.Meta(description="Port of the page; 0: any free one.", ge=0, lt=65536)
    ] = 8080

    def _check_site(self) -> None:
        """Every site is fine here."""


def run(settings: CloudSettings) -> None:
    """Run the cloud until SIGINT or SIGTERM."""
    bundle = load_bundle(Path(settings.bundle), LiteRtSection, ["cloud"])
    manifest = bundle.manifest
    state = Path(settings.state)
    state.mkdir(parents=True, exist_ok=True)
    store = Store(settings.database or f"sqlite:///{state / (settings.node + '.db')}")
    recorder = Recorder(store)
    registry = Registry(recorder.event)
    view = BundleView(bundle.id, manifest.raw_bytes, manifest.jpeg_bytes, manifest.classes)
    server = serve(
        create_app(store, registry.nodes, lambda: view), settings.http_host, settings.http_port
    )
    log.info("page on http://%s:%d/", settings.http_host, server.port)
    served = "+" if settings.site == EVERYWHERE else settings.site
    loop = Loop(
        Identity(settings.site, settings.node, "cloud", bundle.id, ddnn_version()),
        CloudNode(served, settings.node, bundle.id, manifest, settings.timing),
        MqttTransport.of(settings),
        bundle.sections,
        save=recorder.save,
        observe=registry.observe,
        stats_every_s=settings.stats_every_s,
    )
    try:
        run_until_signal(loop)
    finally:
        server.close()
        recorder.close()
        store.close()
