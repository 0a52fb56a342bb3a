"""Wires the edge's machine to its section and a broker connection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.manifest import Manifest
from ddnn.protocol.home_assistant import discovery, require_prefix
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import Bundle, load_bundle, read_manifest
from ddnn.runtime.loop import Identity, Loop
from ddnn.runtime.service import ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings


class EdgeSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of edge_app."""

    home_assistant: Annotated[
        str,
        msgspec.Meta(
            description="Discovery prefix of Home Assistant, such as homeassistant; empty: off."
        ),
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.home_assistant:
            require_prefix(self.home_assistant)


def load(settings: EdgeSettings) -> Bundle:
    """The bundle with this edge's section; ConfigError where it knows no such edge."""
    path = Path(settings.bundle)
    hierarchy = read_manifest(path)[0].hierarchy
    hierarchy.group(settings.node)
    return load_bundle(path, LiteRtSection, [settings.node] if hierarchy.edge_section else [])


def check(settings: EdgeSettings) -> None:
    """Raise a DdnnError where `run` could not start."""
    load(settings)
    settings.check_files()


def announcements(settings: EdgeSettings, manifest: Manifest) -> list[tuple[str, bytes]]:
    """What the lead edge tells Home Assistant at every connect."""
    hierarchy = manifest.hierarchy
    if not settings.home_assistant or settings.node != hierarchy.lead:
        return []
    entities = discovery(
        settings.home_assistant,
        settings.site,
        model=manifest.name,
        classes=manifest.classes,
        edges=[group.id for group in hierarchy.edges],
        devices=hierarchy.devices,
        version=ddnn_version(),
    )
    return [(topic, msgspec.json.encode(payload)) for topic, payload in entities]


def run(settings: EdgeSettings) -> None:
    """Run the edge until SIGINT or SIGTERM."""
    bundle = load(settings)
    manifest, bundle_id = bundle.manifest, bundle.id
    answers = FileAnswerLog(Path(settings.state) / f"{settings.node}.answers")
    machine = EdgeNode(
        settings.site, settings.node, bundle_id, manifest, settings.timing, answers.pending
    )
    loop = Loop(
        Identity(settings.site, settings.node, "edge", bundle_id, ddnn_version()),
        machine,
        MqttTransport.of(settings),
        bundle.sections,
        answer_log=answers,
        announce=announcements(settings, manifest),
        stats_every_s=settings.stats_every_s,
    )
    run_until_signal(loop)
