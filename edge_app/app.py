"""Wires the edge's machine to its section and a broker connection."""

from __future__ import annotations

from pathlib import Path

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.exits.edge_node import EdgeNode
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import load_bundle, read_manifest
from ddnn.runtime.loop import Identity, Loop
from ddnn.runtime.service import ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings


class EdgeSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of edge_app."""


def run(settings: EdgeSettings) -> None:
    """Run the edge until SIGINT or SIGTERM."""
    path = Path(settings.bundle)
    manifest, bundle_id = read_manifest(path)
    hierarchy = manifest.hierarchy
    hierarchy.group(settings.node)
    names = [settings.node] if hierarchy.edge_section else []
    sections = load_bundle(path, LiteRtSection, names).sections
    answers = FileAnswerLog(Path(settings.state) / f"{settings.node}.answers")
    machine = EdgeNode(
        settings.site, settings.node, bundle_id, manifest, settings.timing, answers.pending
    )
    loop = Loop(
        Identity(settings.site, settings.node, "edge", bundle_id, ddnn_version()),
        machine,
        MqttTransport.of(settings),
        sections,
        answer_log=answers,
        stats_every_s=settings.stats_every_s,
    )
    run_until_signal(loop)
