"""Wires a camera, a section and a broker connection into a device node; or lends to others."""

from __future__ import annotations

import logging
import math
import queue
import random
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import click
import msgspec

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.adapters.systemd import Notifier
from ddnn.errors import ConfigError, DdnnError, LinkError
from ddnn.exits.device_node import DeviceNode, list_device_sections
from ddnn.exits.hierarchy import CLOUD
from ddnn.machines.clock import OnSiteTime, SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.observer import Observer
from ddnn.protocol.codec import encode
from ddnn.protocol.machine import Now
from ddnn.protocol.messages import WorkerOffer
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import Bundle, load_bundle, read_manifest
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.service import ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings, read_secret
from device_app.capture import Capture, Samples, Sink, live, no_counts, stored
from device_app.picture import Image, MotionGate, parse_roi, scaled
from device_app.sources import PREPARED, Uri, open_camera, open_source, parse_uri, require_libraries
from device_app.ticks import Clock
from device_app.worker import Worker, open_worker

log = logging.getLogger(__name__)

STORED_LIMIT_S = 120.0  # for a data set to be rendered

KINDS = (
    "picamera://0, v4l2:///dev/video0, rtsp://HOST/…, video:FILE, directory:DIR, "
    "dataset:NAME[:PATH], frames:DIR"
)


class DeviceSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of device_app."""

    source: Annotated[str, msgspec.Meta(description=f"Frames: {KINDS}.")] = ""
    source_file: Annotated[
        str,
        msgspec.Meta(description="File whose first line is the source: for URIs with a password."),
    ] = ""
    lend: Annotated[
        Literal["off", "on"],
        msgspec.Meta(
            description="on or off: lend computing power to the layer that an edge shares; without "
            "a source this node, which then may have any new name, does nothing else."
        ),
    ] = "off"
    plan: Annotated[
        str, msgspec.Meta(description="Directory that `ddnn plan` wrote [BUNDLE/deployment].")
    ] = ""
    rate_hz: Annotated[float, msgspec.Meta(description="Samples per second.", gt=0, le=1000)] = 10.0
    view: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None,
        msgspec.Meta(description="Which view of the source; by default the node's."),
    ] = None
    roi: Annotated[
        str,
        msgspec.Meta(
            description="Region of interest: x,y,w,h as fractions of the frame, from its upper "
            "left; its middle, in the aspect of the section's input, is what the section sees."
        ),
    ] = ""
    motion: Annotated[
        float,
        msgspec.Meta(
            description="Samples only while something moves: while at least this share of the "
            "pixels of the section's input (0.02 is one in fifty) differs in brightness by more "
            "than a tenth from the last second's average. 0: always.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    motion_hold_s: Annotated[
        float, msgspec.Meta(description="Samples go on for so long after the last motion.", ge=0)
    ] = 2.0
    camera_timeout_s: Annotated[
        float,
        msgspec.Meta(
            description="A camera without a frame for so long is opened again.", ge=0.1, le=3600
        ),
    ] = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.source and self.source_file) or not (self.has_source or self.lend == "on"):
            raise ConfigError(
                f"give either --source or --source-file, or --lend on, or both; a source is one of "
                f"{KINDS}"
            )
        if self.plan and self.lend == "off":
            raise ConfigError("--plan is for --lend on")
        parse_roi(self.roi)
        if self.source:
            self._check_source(parse_uri(self.source))

    def __repr__(self) -> str:
        return f"DeviceSettings({self.site}/{self.node})"  # its source may hold a password

    @property
    def has_source(self) -> bool:
        return bool(self.source or self.source_file)

    def _check_source(self, source: Uri) -> None:
        if source.kind in PREPARED and (self.roi or self.motion):
            raise ConfigError(
                f"--roi and --motion are for cameras, videos and directories; the images of "
                f"{source.kind} are what the section sees"
            )

    @property
    def uri(self) -> str:
        """The source. May hold a password: log `parse_uri(…).shown`."""
        if self.source:
            return self.source
        uri = read_secret(self.source_file)
        try:
            source = parse_uri(uri)
        except ConfigError:  # would show the line: it may be a password
            raise ConfigError(
                f"--source-file {self.source_file}: its first line is no source; one of {KINDS}"
            ) from None
        self._check_source(source)
        return uri


def check(settings: DeviceSettings) -> None:
    """Raise a DdnnError where `run` could not start, or the source gives no frame now."""
    settings.check_files()
    if not settings.has_source:
        check_worker(settings, load_worker(settings))
        return
    bundle = load(settings)
    if settings.lend == "on":
        check_worker(settings, bundle.id)
    require_libraries(parse_uri(settings.uri).kind, imported=True)
    click.echo(first_frame(settings, bundle.manifest.image_shape, view_of(settings, bundle)))


def run(settings: DeviceSettings) -> None:
    """Run the device until SIGINT or SIGTERM."""
    if not settings.has_source:
        run_worker(settings)
        return
    bundle = load(settings)
    manifest = bundle.manifest
    answers = FileAnswerLog(Path(settings.state) / f"{settings.node}.answers")
    device = DeviceNode(
        settings.site, settings.node, bundle.id, manifest, settings.timing, answers.pending
    )
    clock = SiteClock(settings.site, settings.node)
    counts = no_counts()
    worker = open_worker_node(settings, bundle.id) if settings.lend == "on" else None
    loop = Loop(
        Identity(settings.site, settings.node, "device", bundle.id, ddnn_version()),
        CompositeMachine(
            Observer(None, lambda: counts, lambda: capture.gauges()),
            OnSiteTime(device, clock),
            clock,
            *([worker.machine] if worker else []),
        ),
        MqttTransport.of(settings),
        (
            Resources(bundle.sections, worker.load, worker.find_plan, answers)
            if worker
            else Resources(bundle.sections, answer_log=answers)
        ),
        announcements=[] if worker else [withdraw_offer(settings)],
        stats_every_s=settings.stats_every_s,
    )
    capture = open_capture(
        settings, bundle, loop, lambda: clock.time_s(Now(time.monotonic(), time.time())), counts
    )
    capture.start()
    try:
        run_until_signal(loop, Notifier())
    finally:
        capture.close()


def check_worker(settings: DeviceSettings, bundle: str) -> None:
    worker = open_worker_node(settings, bundle)
    worker.check()
    click.echo(worker.summary)


def withdraw_offer(settings: DeviceSettings) -> tuple[str, bytes]:
    """A retained message in the place of what this node may have offered before."""
    return str(Topic(settings.site, Kind.OFFER, settings.node)), encode(WorkerOffer({}))


def run_worker(settings: DeviceSettings) -> None:
    """Run a node without a camera, which only works for others."""
    bundle = load_worker(settings)
    worker = open_worker_node(settings, bundle)
    loop = Loop(
        Identity(settings.site, settings.node, "worker", bundle, ddnn_version()),
        worker.machine,
        MqttTransport.of(settings),
        Resources(load=worker.load, find_plan=worker.find_plan),
        stats_every_s=settings.stats_every_s,
    )
    run_until_signal(loop, Notifier())


def load_worker(settings: DeviceSettings) -> str:
    """The id of the bundle. ConfigError where the node has work of its own in it."""
    manifest, bundle = read_manifest(Path(settings.bundle))
    hierarchy = manifest.hierarchy
    if settings.node in (*hierarchy.devices, *(group.id for group in hierarchy.edges), CLOUD):
        raise ConfigError(
            f"--node {settings.node!r} has a place of its own in the bundle: give it a --source, "
            "or the worker another name, such as worker1"
        )
    return bundle


def open_worker_node(settings: DeviceSettings, bundle: str) -> Worker:
    worker = open_worker(settings, settings.plan, bundle)
    log.info("%s", worker.summary)
    return worker


def load(settings: DeviceSettings) -> Bundle:
    """The bundle with this device's section. ConfigError unless a device could start like this."""
    if settings.source and parse_uri(settings.source).secret and settings.source in sys.argv:
        raise ConfigError(
            "--source with a password: every user of this machine sees the command line; "
            "write the URI into a file that only this user reads, and name it with --source-file"
        )
    require_libraries(parse_uri(settings.uri).kind)
    path = Path(settings.bundle)
    manifest = read_manifest(path)[0]
    devices = manifest.hierarchy.devices
    if settings.node not in devices:
        raise ConfigError(
            f"--node {settings.node!r} is no device of the bundle; it knows {', '.join(devices)}"
        )
    return load_bundle(path, LiteRtSection, list_device_sections(manifest, settings.node))


def view_of(settings: DeviceSettings, bundle: Bundle) -> int:
    devices = bundle.manifest.hierarchy.devices
    return devices.index(settings.node) if settings.view is None else settings.view


def open_capture(
    settings: DeviceSettings, bundle: Bundle, sink: Sink, wall: Clock, counts: dict[str, int]
) -> Capture:
    """What brings the frames of the source to the sink, not started yet."""
    uri, period_s = settings.uri, 1 / settings.rate_hz
    source, roi = parse_uri(uri), parse_roi(settings.roi)
    shape = bundle.manifest.image_shape
    gate = MotionGate(settings.motion, settings.motion_hold_s) if settings.motion else None
    samples = Samples(sink, period_s, wall, counts, gate)
    if source.live:

        def scale(image: Image, bgr: bool) -> Image:
            return scaled(image, shape, roi, bgr=bgr)

        work = live(partial(open_camera, uri, settings.camera_timeout_s), scale, samples)
    else:
        opens = partial(open_source, uri, view_of(settings, bundle), shape, roi)
        work = stored(opens, samples)
    return Capture(
        source.shown,
        work,
        counts,
        limit_s=settings.camera_timeout_s if source.live else math.inf,
        secret=uri,
        dice=random.Random(settings.node),  # noqa: S311  jitter
    )


def first_frame(settings: DeviceSettings, shape: tuple[int, int, int], view: int) -> str:
    """Open the source, take one frame and say what it is like; what is wrong with it is raised."""
    uri = settings.uri
    source = parse_uri(uri)
    limit_s = 3 * settings.camera_timeout_s if source.live else STORED_LIMIT_S
    done: queue.SimpleQueue[tuple[int, ...] | DdnnError] = queue.SimpleQueue()

    def take() -> None:
        try:
            if not source.live:
                done.put(
                    open_source(uri, view, shape, parse_roi(settings.roi)).frame(0).image.shape
                )
                return
            camera = open_camera(uri, settings.camera_timeout_s)
            try:
                camera.grab()
                done.put(camera.image().shape)
            finally:
                camera.close()
        except Exception as error:  # drivers and decoders raise whatever they like
            words = f"{error if isinstance(error, (DdnnError, OSError)) else repr(error)}"
            kind = type(error) if isinstance(error, DdnnError) else LinkError
            done.put(kind(f"source {source.shown}: {words.replace(uri, source.shown)}"))

    threading.Thread(target=take, name="camera", daemon=True).start()
    try:
        taken = done.get(timeout=limit_s)
    except queue.Empty:
        raise LinkError(f"source {source.shown}: no frame within {limit_s:g} s") from None
    if isinstance(taken, DdnnError):
        raise taken
    return f"source {source.shown}: a frame of {taken[1]}x{taken[0]} pixels"
