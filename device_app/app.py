"""The device node: a camera, a section and a broker connection, or a worker without a camera."""

from __future__ import annotations

import logging
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from ddnn.adapters.joined import check_site_file, open_guard
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.adapters.systemd import Notifier
from ddnn.core.pace import PaceHistory
from ddnn.errors import ConfigError
from ddnn.exits.device_exit import list_device_sections
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.hierarchy import CLOUD
from ddnn.machines.clock import OnSiteTime, SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.latest import LatestAnswer
from ddnn.machines.observer import Observer
from ddnn.machines.rollout import RolloutNode
from ddnn.pipeline.worker_node import TrainWorker
from ddnn.protocol.codec import encode
from ddnn.protocol.machine import Machine, Now
from ddnn.protocol.messages import WorkerOffer
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import Bundle, load_bundle, read_manifest
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.library import BundleLibrary, find_bundle_path
from ddnn.runtime.loop import Loop
from ddnn.runtime.new_directory import convert_write_errors
from ddnn.runtime.pictures import Image, make_input
from ddnn.runtime.service import (
    find_ddnn_version,
    has_inferred_lately,
    is_working,
    run_until_signal,
)
from ddnn.runtime.state_lock import StateLock
from ddnn.runtime.time_file import TimeFile
from device_app.capture import Capture, Samples, Sink, make_counts, make_live_work, make_stored_work
from device_app.picture import MotionGate
from device_app.recording import make_recorder, make_tap
from device_app.settings import DeviceSettings
from device_app.sources import (
    open_camera,
    open_source,
    parse_uri,
    require_libraries,
)
from device_app.speed import describe_speed
from device_app.target import Target, find_target, take_first_frame
from device_app.ticks import PaceReader, Tap
from device_app.ticks import SiteClock as TickClock
from device_app.trainer import can_train, leave_training, open_trainer
from device_app.worker import Worker, open_worker

log = logging.getLogger(__name__)


def check(settings: DeviceSettings) -> None:
    """Raise a DdnnError where `run` cannot start or the source gives no frame."""
    settings.check_files()
    show_site_file(settings)
    if not settings.has_source:
        bundle_id = read_worker_bundle(settings)
        if settings.bundle:
            check_worker(settings, bundle_id)
        else:
            click.echo("no bundle: takes part in trainings only")
        return
    bundle = open_bundle(settings)
    if bundle is not None and settings.lend == "on":
        check_worker(settings, bundle.id)
    require_libraries(parse_uri(settings.uri).kind, imported=True)
    target = find_target(settings, bundle.manifest if bundle else None)
    click.echo(take_first_frame(settings, target, bundle))
    if bundle is not None and (section := bundle.sections.get(settings.node)) is not None:
        click.echo(describe_speed(section, bundle.manifest.image_shape))


def show_site_file(settings: DeviceSettings) -> None:
    """Print what the site file is, if there is one; ConfigError where it is not valid."""
    if text := check_site_file(settings):
        click.echo(text)


def run(settings: DeviceSettings) -> None:
    """Run the device until SIGINT or SIGTERM."""
    if not settings.has_source:
        run_worker(settings)
        return
    bundle = open_bundle(settings)
    target = find_target(settings, bundle.manifest if bundle else None)
    if settings.allow_recording == "on":
        log.warning("recording is allowed: `ddnn collect` of this site gets pictures when it asks")
    state = Path(settings.state)
    with convert_write_errors(state):
        state.mkdir(parents=True, exist_ok=True)
    time_file = TimeFile(state / f"{settings.node}.time")
    clock = SiteClock(settings.site, settings.node, time_file.read(), time.monotonic())
    recorder = make_recorder(settings, bundle.id if bundle else "", target.input_format)
    counts = make_counts()
    worker = open_worker_node(settings, bundle.id) if bundle and settings.lend == "on" else None
    lock = StateLock(state, settings.node)
    identity = Identity(
        settings.site,
        settings.node,
        "device",
        bundle.id if bundle else "",
        find_ddnn_version(),
        lock.instance,
    )
    trainer = open_trainer_node(settings) if settings.lend == "on" else None
    parts: list[Machine] = [worker.machine] if worker else []
    timed: list[Machine] = [recorder]  # by the site's time
    resources = Resources(load=worker.load if worker else None, time_file=time_file)
    pace: PaceReader = PaceHistory
    if bundle is not None:
        answers = FileAnswerLog(state / f"{settings.node}.answers")
        device = make_device(settings, bundle, answers)
        timed.append(LatestAnswer(device, settings.site, settings.node))
        pace = partial(getattr, device, "pace")  # it is replaced, never changed
        library = BundleLibrary.of(
            settings,
            bundle,
            LiteRtSection,
            lambda manifest: list_device_sections(manifest, settings.node),
            load_other=resources.load,
        )
        parts.append(
            RolloutNode(settings.site, settings.node, device.versions, device.make_version, library)
        )
        resources = replace(
            resources, sections=bundle.sections, answer_log=answers, load=library.load
        )
    if worker is not None:
        resources = replace(resources, find_plan=worker.find_plan)
    loop = Loop(
        identity,
        CompositeMachine(
            Observer(None, lambda: counts, lambda: capture.read_gauges()),
            *parts,
            OnSiteTime(CompositeMachine(*timed), clock),
            clock,
            *([trainer] if trainer else []),
        ),
        MqttTransport.of(settings, instance=lock.instance),
        resources,
        announcements=[] if worker else [withdraw_offer(settings)],
        guard=open_guard(settings),
        stats_every_s=settings.stats_every_s,
    )
    capture = open_capture(
        settings,
        target,
        loop,
        lambda: clock.read(Now(time.monotonic(), time.time())),
        counts,
        pace,
        make_tap(recorder.wants) if settings.allow_recording == "on" else None,
    )
    capture.start()
    try:
        is_well = has_inferred_lately if bundle else is_working
        run_until_signal(loop, Notifier(), is_well, prepare_stop=make_leaver(trainer, loop))
    finally:
        capture.close()


def make_device(settings: DeviceSettings, bundle: Bundle, answers: FileAnswerLog) -> DeviceNode:
    """Make the machine that runs this device's section."""
    return DeviceNode(
        settings.site,
        settings.node,
        bundle.id,
        bundle.manifest,
        settings.timing,
        answers.pending,
    )


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
    lock = StateLock(Path(settings.state), settings.node)
    worker = open_worker_node(settings, bundle) if settings.bundle else None
    trainer = open_trainer_node(settings)
    parts: list[Machine] = [worker.machine] if worker else []
    parts += [trainer] if trainer else []
    identity = Identity(
        settings.site, settings.node, "worker", bundle, find_ddnn_version(), lock.instance
    )
    loop = Loop(
        identity,
        CompositeMachine(*parts),
        MqttTransport.of(settings, instance=lock.instance),
        Resources(load=worker.load, find_plan=worker.find_plan) if worker else None,
        guard=open_guard(settings),
        stats_every_s=settings.stats_every_s,
    )
    is_well = has_inferred_lately if worker else is_working
    run_until_signal(loop, Notifier(), is_well, prepare_stop=make_leaver(trainer, loop))


def read_worker_bundle(settings: DeviceSettings) -> str:
    """Read the id of the bundle; empty where there is none, and the node only trains.

    Raises ConfigError where the node is a device, edge or cloud of the bundle, or without a bundle
    cannot train.
    """
    if not settings.bundle:
        if not can_train():
            raise ConfigError(
                "without --bundle this node only trains, and TensorFlow is not installed; "
                "pip install 'ddnn[train]', or give --bundle"
            )
        return ""
    manifest, bundle = read_manifest(Path(settings.bundle))
    hierarchy = manifest.hierarchy
    if settings.node in (*hierarchy.devices, *(group.id for group in hierarchy.edges), CLOUD):
        raise ConfigError(
            f"--node {settings.node!r} is a device, edge or cloud of the bundle; give a --source, "
            "or another name for a worker, such as worker1"
        )
    return bundle


def open_trainer_node(settings: DeviceSettings) -> TrainWorker | None:
    """Make the machine that takes part in trainings, where the extra `train` is installed."""
    return open_trainer(
        settings.site, settings.node, settings.train_model, settings.train_threads, settings.slow
    )


def make_leaver(trainer: TrainWorker | None, loop: Loop) -> Callable[[], None] | None:
    """The function that takes this node out of a training before it stops."""
    return partial(leave_training, trainer, loop) if trainer is not None else None


def open_worker_node(settings: DeviceSettings, bundle: str) -> Worker:
    """Open this node's worker, and log its summary."""
    worker = open_worker(settings, settings.plan, bundle)
    log.info("%s", worker.summary)
    return worker


def open_bundle(settings: DeviceSettings) -> Bundle | None:
    """Load the bundle, where this node has one, with its section; ConfigError as below."""
    is_shown = any(settings.source in word for word in sys.argv)  # also in --source=URI
    if settings.source and parse_uri(settings.source).secret and is_shown:
        raise ConfigError(
            "--source with a password: every user of this machine sees the command line; "
            "write the URI to a file that only this user can read, and give --source-file"
        )
    require_libraries(parse_uri(settings.uri).kind)
    if settings.allow_recording == "on":
        require_libraries("directory")  # pictures become JPEG files
    return load_device_bundle(settings) if settings.bundle else None


def load_device_bundle(settings: DeviceSettings) -> Bundle:
    """Load the bundle with this device's section.

    Raises ConfigError where the settings do not fit the bundle or a library is missing.
    """
    path = find_bundle_path(Path(settings.state), settings.node, Path(settings.bundle))
    manifest = read_manifest(path)[0]
    devices = manifest.hierarchy.devices
    if settings.node not in devices:
        raise ConfigError(
            f"--node {settings.node!r} is no device of the bundle; it knows {', '.join(devices)}"
        )
    return load_bundle(path, LiteRtSection, list_device_sections(manifest, settings.node))


def open_capture(
    settings: DeviceSettings,
    target: Target,
    sink: Sink,
    clock: TickClock,
    counts: dict[str, int],
    pace: PaceReader = PaceHistory,
    tap: Tap | None = None,
) -> Capture:
    """Make the capture that sends the source's frames to the sink; the caller starts it."""
    uri, period_s = settings.uri, 1 / settings.rate_hz
    source, (shape, input_format, view) = parse_uri(uri), target
    gate = MotionGate(settings.motion, settings.motion_hold_s) if settings.motion else None
    samples = Samples(sink, period_s, clock, counts, gate, pace, tap)
    if source.live:

        def scale(image: Image, bgr: bool) -> Image:
            return make_input(image, shape, input_format.preprocessing, input_format.roi, bgr=bgr)

        work = make_live_work(partial(open_camera, uri, settings.camera_timeout_s), scale, samples)
    else:
        work = make_stored_work(partial(open_source, uri, view, shape, input_format), samples)
    return Capture(
        source.shown,
        work,
        counts,
        limit_s=settings.camera_timeout_s if source.live else math.inf,
        secret=uri,
        generator=random.Random(settings.node),  # noqa: S311  jitter
    )
