"""The device node: a camera, a section and a broker connection, or a worker without a camera."""

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
from typing import Annotated, Literal, cast

import click
import msgspec

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.adapters.systemd import Notifier
from ddnn.core.preprocessing import parse_roi
from ddnn.errors import ConfigError, DdnnError, LinkError
from ddnn.exits.device_node import DeviceNode, list_device_sections
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.manifest import Manifest
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
from ddnn.runtime.pictures import Image, make_input
from ddnn.runtime.service import find_ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings, read_secret
from ddnn.runtime.time_file import TimeFile
from device_app.capture import Capture, Samples, Sink, make_counts, make_live_work, make_stored_work
from device_app.picture import MotionGate
from device_app.sources import (
    PREPARED,
    InputFormat,
    Uri,
    open_camera,
    open_source,
    parse_uri,
    read_first_frame,
    require_libraries,
)
from device_app.ticks import SiteClock as TickClock
from device_app.worker import Worker, open_worker

log = logging.getLogger(__name__)

STORED_LIMIT_S = 120.0  # limit for rendering a data set

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
            description="on or off: lend computing power to the layer that an edge shares. Without "
            "a source this node is a worker, with a name that is not in the bundle."
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
            "left; by default the one that the bundle was trained with."
        ),
    ] = ""
    motion: Annotated[
        float,
        msgspec.Meta(
            description="Take samples only while at least this share of the pixels of the "
            "section's input (0.02 is one in fifty) differs in brightness by more than a tenth "
            "from the average of the last second. 0: always.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    motion_hold_s: Annotated[
        float, msgspec.Meta(description="How long samples continue after motion.", ge=0)
    ] = 2.0
    camera_timeout_s: Annotated[
        float,
        msgspec.Meta(
            description="A camera without a frame for this long is opened again.", ge=0.1, le=3600
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
            raise ConfigError("--plan without --lend on; expected both")
        parse_roi(self.roi)
        if self.source:
            self._check_source(parse_uri(self.source))

    def __repr__(self) -> str:  # without the source, which may hold a password
        return f"DeviceSettings({self.site}/{self.node})"

    @property
    def has_source(self) -> bool:
        """Whether this node has a camera or stored frames."""
        return bool(self.source or self.source_file)

    def _check_source(self, source: Uri) -> None:
        if source.kind in PREPARED and (self.roi or self.motion):
            raise ConfigError(
                f"--roi and --motion with {source.kind}, whose images are what the section sees; "
                "expected a camera, a video or a directory"
            )

    @property
    def uri(self) -> str:
        """The source, which may hold a password: log `parse_uri(…).shown` instead."""
        if self.source:
            return self.source
        uri = read_secret(self.source_file)
        try:
            source = parse_uri(uri)
        except ConfigError:  # its message shows the line, which may be a password
            raise ConfigError(
                f"--source-file {self.source_file}: its first line is no source; expected "
                f"one of {KINDS}"
            ) from None
        self._check_source(source)
        return uri


def check(settings: DeviceSettings) -> None:
    """Raise a DdnnError where `run` cannot start or the source gives no frame."""
    settings.check_files()
    if not settings.has_source:
        check_worker(settings, read_worker_bundle(settings))
        return
    bundle = load_device_bundle(settings)
    if settings.lend == "on":
        check_worker(settings, bundle.id)
    require_libraries(parse_uri(settings.uri).kind, imported=True)
    click.echo(take_first_frame(settings, bundle))


def run(settings: DeviceSettings) -> None:
    """Run the device until SIGINT or SIGTERM."""
    if not settings.has_source:
        run_worker(settings)
        return
    bundle = load_device_bundle(settings)
    manifest = bundle.manifest
    answers = FileAnswerLog(Path(settings.state) / f"{settings.node}.answers")
    device = DeviceNode(
        settings.site, settings.node, bundle.id, manifest, settings.timing, answers.pending
    )
    time_file = TimeFile(Path(settings.state) / f"{settings.node}.time")
    clock = SiteClock(settings.site, settings.node, time_file.read(), time.monotonic())
    counts = make_counts()
    worker = open_worker_node(settings, bundle.id) if settings.lend == "on" else None
    loop = Loop(
        Identity(settings.site, settings.node, "device", bundle.id, find_ddnn_version()),
        CompositeMachine(
            Observer(None, lambda: counts, lambda: capture.read_gauges()),
            OnSiteTime(device, clock),
            clock,
            *([worker.machine] if worker else []),
        ),
        MqttTransport.of(settings),
        (
            Resources(bundle.sections, worker.load, worker.find_plan, answers, time_file)
            if worker
            else Resources(bundle.sections, answer_log=answers, time_file=time_file)
        ),
        announcements=[] if worker else [withdraw_offer(settings)],
        stats_every_s=settings.stats_every_s,
    )
    capture = open_capture(
        settings, bundle, loop, lambda: clock.read(Now(time.monotonic(), time.time())), counts
    )
    capture.start()
    try:
        run_until_signal(loop, Notifier())
    finally:
        capture.close()


def check_worker(settings: DeviceSettings, bundle: str) -> None:
    """Raise ConfigError where the node cannot work for others; print what it would do."""
    worker = open_worker_node(settings, bundle)
    worker.check()
    click.echo(worker.summary)


def withdraw_offer(settings: DeviceSettings) -> tuple[str, bytes]:
    """The retained message that withdraws an earlier offer of this node: topic and payload."""
    return str(Topic(settings.site, Kind.OFFER, settings.node)), encode(WorkerOffer({}))


def run_worker(settings: DeviceSettings) -> None:
    """Run a worker, a node without a camera, until SIGINT or SIGTERM."""
    bundle = read_worker_bundle(settings)
    worker = open_worker_node(settings, bundle)
    loop = Loop(
        Identity(settings.site, settings.node, "worker", bundle, find_ddnn_version()),
        worker.machine,
        MqttTransport.of(settings),
        Resources(load=worker.load, find_plan=worker.find_plan),
        stats_every_s=settings.stats_every_s,
    )
    run_until_signal(loop, Notifier())


def read_worker_bundle(settings: DeviceSettings) -> str:
    """Read the id of the bundle.

    Raises ConfigError where the node is a device, edge or cloud of the bundle.
    """
    manifest, bundle = read_manifest(Path(settings.bundle))
    hierarchy = manifest.hierarchy
    if settings.node in (*hierarchy.devices, *(group.id for group in hierarchy.edges), CLOUD):
        raise ConfigError(
            f"--node {settings.node!r} is a device, edge or cloud of the bundle; give a --source, "
            "or another name for a worker, such as worker1"
        )
    return bundle


def open_worker_node(settings: DeviceSettings, bundle: str) -> Worker:
    """Open this node's worker, and log its summary."""
    worker = open_worker(settings, settings.plan, bundle)
    log.info("%s", worker.summary)
    return worker


def load_device_bundle(settings: DeviceSettings) -> Bundle:
    """Load the bundle with this device's section.

    Raises ConfigError where the settings do not fit the bundle or a library is missing.
    """
    if settings.source and parse_uri(settings.source).secret and settings.source in sys.argv:
        raise ConfigError(
            "--source with a password: every user of this machine sees the command line; "
            "write the URI to a file that only this user can read, and give --source-file"
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


def choose_view(settings: DeviceSettings, bundle: Bundle) -> int:
    """The number of the view of the source: --view, or the device's in the bundle."""
    devices = bundle.manifest.hierarchy.devices
    return devices.index(settings.node) if settings.view is None else settings.view


def make_input_format(settings: DeviceSettings, manifest: Manifest) -> InputFormat:
    """What the bundle says about this device's pictures; --roi takes the place of its region."""
    trained = manifest.preprocessing.find_roi(settings.node)
    roi = parse_roi(settings.roi) if settings.roi else trained
    if roi != trained:
        log.warning(
            "--roi %s: the bundle was trained with %s for %s; right only if this camera's picture "
            "shows there what the pictures of the training showed",
            settings.roi,
            ",".join(f"{part:g}" for part in trained),
            settings.node,
        )
    return InputFormat(
        manifest.preprocessing,
        roi,
        manifest.classes,
        manifest.cameras,
        cast("Literal['name', 'time', 'order']", manifest.training.get("pair_by", "name")),
    )


def open_capture(
    settings: DeviceSettings, bundle: Bundle, sink: Sink, clock: TickClock, counts: dict[str, int]
) -> Capture:
    """Make the capture that sends the source's frames to the sink; the caller starts it."""
    uri, period_s = settings.uri, 1 / settings.rate_hz
    source, wanted = parse_uri(uri), make_input_format(settings, bundle.manifest)
    shape = bundle.manifest.image_shape
    gate = MotionGate(settings.motion, settings.motion_hold_s) if settings.motion else None
    samples = Samples(sink, period_s, clock, counts, gate)
    if source.live:

        def scale(image: Image, bgr: bool) -> Image:
            return make_input(image, shape, wanted.preprocessing, wanted.roi, bgr=bgr)

        work = make_live_work(partial(open_camera, uri, settings.camera_timeout_s), scale, samples)
    else:
        view = choose_view(settings, bundle)
        work = make_stored_work(partial(open_source, uri, view, shape, wanted), samples)
    return Capture(
        source.shown,
        work,
        counts,
        limit_s=settings.camera_timeout_s if source.live else math.inf,
        secret=uri,
        generator=random.Random(settings.node),  # noqa: S311  jitter
    )


def take_first_frame(settings: DeviceSettings, bundle: Bundle) -> str:
    """Open the source and take one frame; returns a line that describes it.

    Raises a DdnnError where that fails or takes too long.
    """
    uri = settings.uri
    source = parse_uri(uri)
    limit_s = 3 * settings.camera_timeout_s if source.live else STORED_LIMIT_S
    done: queue.SimpleQueue[tuple[int, ...] | DdnnError] = queue.SimpleQueue()

    def take() -> None:
        try:
            if not source.live:
                wanted = make_input_format(settings, bundle.manifest)
                view = choose_view(settings, bundle)
                opened = open_source(uri, view, bundle.manifest.image_shape, wanted)
                done.put(read_first_frame(opened).image.shape)
                return
            camera = open_camera(uri, settings.camera_timeout_s)
            try:
                camera.grab()
                done.put(camera.read_image().shape)
            finally:
                camera.close()
        except Exception as error:  # drivers and decoders raise exceptions of any type
            text = f"{error if isinstance(error, (DdnnError, OSError)) else repr(error)}"
            kind = type(error) if isinstance(error, DdnnError) else LinkError
            done.put(kind(f"source {source.shown}: {text.replace(uri, source.shown)}"))

    threading.Thread(target=take, name="camera", daemon=True).start()
    try:
        taken = done.get(timeout=limit_s)
    except queue.Empty:
        raise LinkError(f"source {source.shown}: no frame within {limit_s:g} s") from None
    if isinstance(taken, DdnnError):
        raise taken
    return f"source {source.shown}: a frame of {taken[1]}x{taken[0]} pixels"
