"""Wires a camera, a section and a broker connection into a device node."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Annotated

import msgspec

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.ids import tick_of
from ddnn.errors import ConfigError, DdnnError
from ddnn.exits.device_node import DeviceNode, own_section
from ddnn.protocol.machine import Captured
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import load_bundle, read_manifest
from ddnn.runtime.loop import Identity, Loop
from ddnn.runtime.service import ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings
from device_app.sources import open_source

log = logging.getLogger(__name__)

REOPEN_S = (1.0, 30.0)


class DeviceSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of device_app."""

    source: Annotated[
        str, msgspec.Meta(description="Frames: dataset:NAME[:PATH], directory:DIR, video:FILE.")
    ]
    rate_hz: Annotated[float, msgspec.Meta(description="Samples per second.", gt=0, le=1000)] = 10.0
    view: Annotated[
        int | None, msgspec.Meta(description="Which view of the source; by default the node's.")
    ] = None


def run(settings: DeviceSettings) -> None:
    """Run the device until SIGINT or SIGTERM."""
    path = Path(settings.bundle)
    manifest, bundle_id = read_manifest(path)
    devices = manifest.hierarchy.devices
    if settings.node not in devices:
        raise ConfigError(
            f"--node {settings.node!r} is no device of the bundle; it knows {', '.join(devices)}"
        )
    names = own_section(manifest, settings.node)
    sections = load_bundle(path, LiteRtSection, names).sections
    answers = FileAnswerLog(Path(settings.state) / f"{settings.node}.answers")
    machine = DeviceNode(
        settings.site, settings.node, bundle_id, manifest, settings.timing, answers.pending
    )
    loop = Loop(
        Identity(settings.site, settings.node, "device", bundle_id, ddnn_version()),
        machine,
        MqttTransport.of(settings),
        sections,
        answer_log=answers,
        stats_every_s=settings.stats_every_s,
    )
    view = devices.index(settings.node) if settings.view is None else settings.view
    source = settings.source
    capture = threading.Thread(
        target=_capture,
        args=(loop, source, view, manifest.image_shape, 1 / settings.rate_hz),
        name="capture",
        daemon=True,
    )
    capture.start()
    run_until_signal(loop)


def _capture(loop: Loop, uri: str, view: int, shape: tuple[int, int, int], period_s: float) -> None:
    """One frame per tick. A source that fails is opened again, with back-off."""
    wait_s = REOPEN_S[0]
    while True:
        try:
            source = open_source(uri, view, shape)
            tick = tick_of(time.time(), period_s)
            while True:
                tick = max(tick + 1, tick_of(time.time(), period_s))
                time.sleep(max(0.0, tick * period_s - time.time()))
                frame = source.frame(tick)
                loop.captured(Captured(tick, tick * period_s, {"image": frame.image}, frame.label))
                wait_s = REOPEN_S[0]
        except (DdnnError, OSError) as error:
            log.error("source %s: %s; trying again in %.0f s", uri, error, wait_s)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, REOPEN_S[1])
