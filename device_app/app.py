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
from device_app.sources import FrameSource, open_source, parse_uri

log = logging.getLogger(__name__)

REOPEN_S = (1.0, 30.0)


class DeviceSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of device_app."""

    source: Annotated[
        str, msgspec.Meta(description="Frames: dataset:NAME[:PATH], directory:DIR, video:FILE.")
    ]
    rate_hz: Annotated[float, msgspec.Meta(description="Samples per second.", gt=0, le=1000)] = 10.0
    view: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None,
        msgspec.Meta(description="Which view of the source; by default the node's."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_uri(self.source)


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


class Clocked:
    """A frame at every tick of the wall clock; ticks that were missed are passed over."""

    def __init__(self, source: FrameSource, period_s: float) -> None:
        self.source, self._period_s = source, period_s
        self._tick = tick_of(time.time(), period_s) + 1

    def due_s(self) -> float:
        """Monotonic time of the next tick, by what the wall clock says now."""
        now_s = time.time()
        if self._tick * self._period_s - now_s > 2 * self._period_s:  # the clock was set back
            self._tick = tick_of(now_s, self._period_s) + 1
        return time.monotonic() + self._tick * self._period_s - now_s

    def take(self) -> Captured:
        tick = max(self._tick, tick_of(time.time(), self._period_s))
        self._tick = tick + 1
        frame = self.source.frame(tick)
        return Captured(tick, tick * self._period_s, {"image": frame.image}, frame.label)


def _capture(loop: Loop, uri: str, view: int, shape: tuple[int, int, int], period_s: float) -> None:
    """One frame per tick. A source that fails is opened again, with back-off."""
    wait_s = REOPEN_S[0]
    while True:
        try:
            frames = Clocked(open_source(uri, view, shape), period_s)
            if frames.source.at_hand:
                loop.attach(frames)  # no thread stands between camera and section
                return
            while True:
                time.sleep(max(0.0, frames.due_s() - time.monotonic()))
                loop.captured(frames.take())
                wait_s = REOPEN_S[0]
        except Exception as error:  # drivers and decoders raise whatever they like
            what = error if isinstance(error, (DdnnError, OSError)) else repr(error)
            log.error("source %s: %s; trying again in %.0f s", uri, what, wait_s)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, REOPEN_S[1])
