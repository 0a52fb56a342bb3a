"""Checks that the node's bundle is complete, computes its golden outputs, and equals its peers'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ddnn.cli.doctor.check import Finding
from ddnn.cli.doctor.node import App, ExaminedNode
from ddnn.cli.observer import make_printable
from ddnn.errors import ConfigError
from ddnn.exits.device_exit import list_device_sections
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.manifest import Manifest
from ddnn.protocol.messages import Status
from ddnn.runtime.bundle import load_bundle, read_manifest


def check_bundle(node: ExaminedNode, online: Mapping[str, Status]) -> Finding:
    """Check the bundle. `online`: the statuses of the nodes that are online at the site."""
    if not node.settings.bundle:
        return Finding.skipped("no bundle is named", "name it with --bundle")
    try:
        from ddnn.adapters.litert import LiteRtSection
    except ImportError as error:
        raise ConfigError(f"LiteRT cannot be loaded: {error}; reinstall ddnn with pip") from None
    directory = Path(node.settings.bundle)
    manifest, _ = read_manifest(directory)
    names = [] if node.is_worker else list_sections(manifest, node.app, node.settings.node)
    bundle = load_bundle(directory, LiteRtSection, names)
    sections = ", ".join(bundle.sections) or "no section"
    message = f"{manifest.name} {bundle.id}; checksums and golden outputs agree ({sections})"
    announced = {peer: status.bundle for peer, status in online.items() if status.bundle}
    others = {peer: other for peer, other in announced.items() if other != bundle.id}
    if not others:
        equal = f"; the same as that of {', '.join(announced)}" if announced else ""
        return Finding.ok(message + equal)
    listed = ", ".join(f"{peer} runs {make_printable(other)}" for peer, other in others.items())
    remedy = "copy one bundle to every node and restart it"
    if manifest.hierarchy.lead in others:
        problem = f"{bundle.id} here, but {listed}: sections of two bundles are never fused"
        return Finding.failed(problem, remedy)
    return Finding.warning(f"{message}; but {listed}", remedy)


def list_sections(manifest: Manifest, app: App | None, node: str) -> list[str] | None:
    """The sections that the node runs; None: all. ConfigError where the bundle has no such node."""
    hierarchy = manifest.hierarchy
    if app == "device":
        if node not in hierarchy.devices:
            known = ", ".join(hierarchy.devices)
            raise ConfigError(
                f"--node {node!r} is no device of the bundle; its devices are {known}"
            )
        return list(list_device_sections(manifest, node))
    if app == "edge":
        hierarchy.find_group(node)
        return [node] if hierarchy.edge_section else []
    return [CLOUD] if app == "cloud" else None
