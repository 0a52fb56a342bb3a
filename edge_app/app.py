"""Connects the edge's machine with its section and a broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import click
import msgspec

from ddnn.adapters.joined import check_site_file, open_guard
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.matrices import load_section
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.plan import Plan
from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits.edge_node import EdgeExit, EdgeNode, list_edge_sections
from ddnn.exits.manifest import Manifest
from ddnn.exits.trial import try_sample
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.latest import REPEAT_S, LatestAnswer
from ddnn.machines.offload_node import OffloadNode
from ddnn.machines.recording_notice import RecordingNotice
from ddnn.machines.replan import Replanner
from ddnn.machines.rollout import RolloutNode
from ddnn.machines.versioned import Version
from ddnn.protocol.access import Role
from ddnn.protocol.home_assistant import make_discovery, require_prefix
from ddnn.protocol.machine import Machine, SectionName
from ddnn.rooms import find_room, replan
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import Bundle, load_bundle, read_manifest
from ddnn.runtime.host import AnswerLog, Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.library import BundleLibrary, find_bundle_path
from ddnn.runtime.loop import Loop
from ddnn.runtime.plans import DIRECTORY, PlanDirectory, PlanWatch
from ddnn.runtime.service import find_ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.state_lock import StateLock
from ddnn.runtime.time_file import TimeFile

log = logging.getLogger(__name__)

MIN_EXPIRE_S = 3 * REPEAT_S


class EdgeSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of edge_app."""

    home_assistant: Annotated[
        str,
        msgspec.Meta(
            description="Discovery prefix of Home Assistant, such as homeassistant; empty: off."
        ),
    ] = ""

    home_assistant_expire_s: Annotated[
        float,
        msgspec.Meta(
            description="Home Assistant shows no answer that is older; at least 30, or 0: always "
            "the last one.",
            ge=0,
            le=1e6,
        ),
    ] = 60.0
    audit_share: Annotated[
        float,
        msgspec.Meta(
            description="Share of the samples that the local exit is sure of and that go up all "
            "the same, so that the page shows how often deeper exits agree; 0: none.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    redundancy: Annotated[
        Literal["off", "on"],
        msgspec.Meta(
            description="on or off: share a layer among workers by the plan of `ddnn plan`."
        ),
    ] = "off"
    plan: Annotated[
        str, msgspec.Meta(description="Directory that `ddnn plan` wrote [BUNDLE/deployment].")
    ] = ""
    straggler_threshold_s: Annotated[
        float,
        msgspec.Meta(
            description="How long the edge waits for all live workers; after it, or with 0 at "
            "once, it decodes any results that suffice.",
            ge=0,
        ),
    ] = 0.0
    layer_timeout_s: Annotated[
        float,
        msgspec.Meta(
            description="After this time without enough results the edge computes the layer "
            "itself; 0: half of --window-s.",
            ge=0,
        ),
    ] = 0.0
    layer_here: Annotated[
        Literal["on", "off"],
        msgspec.Meta(
            description="on: the edge computes the layer where the workers do not suffice; off: a "
            "shallower exit answers such samples."
        ),
    ] = "on"
    replan_after_s: Annotated[
        float,
        msgspec.Meta(
            description="A worker that was away, or there, for so long has left, or joined, for "
            "good: pieces that may change their holders (students) are placed again; 0: never.",
            ge=0,
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan and self.redundancy == "off":
            raise ConfigError("--plan is for --redundancy on")
        if self.redundancy == "on" and self.layer_timeout_s >= 2 * self.window_s:
            raise ConfigError(
                f"--layer-timeout-s {self.layer_timeout_s:g}: the exit waits {2 * self.window_s:g} "
                "s for the section (twice --window-s); use less"
            )
        if self.home_assistant:
            require_prefix(self.home_assistant)
        if 0 < self.home_assistant_expire_s < MIN_EXPIRE_S:
            raise ConfigError(
                f"--home-assistant-expire-s {self.home_assistant_expire_s:g}: an answer that does "
                f"not change is repeated every {REPEAT_S:g} s; use {MIN_EXPIRE_S:g} or more, or 0"
            )

    @property
    def needed_roles(self) -> tuple[Role, ...]:
        return ("edge",)


def load_edge_bundle(settings: EdgeSettings) -> Bundle:
    """Load the bundle with this edge's section; ConfigError where it has no such edge."""
    path = Path(settings.bundle)
    if settings.redundancy == "off":
        path = find_bundle_path(Path(settings.state), settings.node, path)
    hierarchy = read_manifest(path)[0].hierarchy
    hierarchy.find_group(settings.node)
    whole = hierarchy.edge_section and (settings.redundancy == "off" or settings.layer_here == "on")
    return load_bundle(path, LiteRtSection, [settings.node] if whole else [])


@dataclass(frozen=True, slots=True)
class Edge:
    """The edge's machine, its sections, and the plan by which workers compute one of them."""

    bundle: Bundle
    machine: Machine
    resources: Resources
    plans: PlanDirectory | None = None
    plan: Plan | None = None
    summary: str = ""


def open_offload(
    settings: EdgeSettings,
    bundle: Bundle,
    edge: Machine,
    answers: AnswerLog | None,
    time_file: TimeFile,
) -> Edge:
    """Open the plan, and wrap the edge's machine so that workers compute its section."""
    path = Path(settings.plan or Path(settings.bundle) / DIRECTORY)
    plans = PlanDirectory(path, bundle.id, load_section, find_room)
    plan = plans.read()
    if plan.group != settings.node:
        raise ConfigError(f"the plan in {path} is for {plan.group}, not for {settings.node}")
    machine = OffloadNode(
        edge,
        settings.site,
        plan,
        lambda plan: find_room(plan.room).make_combiner(plan),
        threshold_s=settings.straggler_threshold_s,
        timeout_s=settings.layer_timeout_s or settings.window_s / 2,
        compute_here=settings.layer_here == "on",
        stopwatch=time.perf_counter,
        replanner=Replanner(list(plan.placement), replan, settings.replan_after_s, time.monotonic())
        if settings.replan_after_s
        else None,
    )

    owned: dict[SectionName, Section] = {
        plan.key(name): plans.load(plan.key(name)) for name in plan.owned
    }
    title = machine.current.combiner.title
    return Edge(
        bundle,
        machine,
        Resources(
            {**owned, **bundle.sections}, plans.load, answer_log=answers, time_file=time_file
        ),
        plans,
        plan,
        f"shares {title} by plan {plan.id} among {', '.join(plan.placement)}",
    )


def check(settings: EdgeSettings) -> None:
    """Raise a DdnnError where `run` could not start."""
    edge = open_edge(settings)
    try_sample(edge.bundle.manifest, edge.bundle.sections)
    settings.check_files()
    if text := check_site_file(settings):
        click.echo(text)
    if edge.summary:
        click.echo(edge.summary)


def open_edge(settings: EdgeSettings, answers: FileAnswerLog | None = None) -> Edge:
    """Open what `run` needs; ConfigError where it could not start."""
    bundle = load_edge_bundle(settings)
    pending = answers.pending if answers is not None else ()
    time_file = TimeFile(Path(settings.state) / f"{settings.node}.time")
    edge = EdgeNode(
        settings.site,
        settings.node,
        bundle.id,
        bundle.manifest,
        settings.timing,
        pending,
        time_file.read(),
        settings.audit_share,
    )
    library = BundleLibrary.of(
        settings,
        bundle,
        LiteRtSection,
        lambda manifest: list_edge_sections(manifest, settings.node),
    )
    make_version: Callable[[str, Manifest], Version[EdgeExit]]
    if settings.redundancy == "on":
        opened = open_offload(settings, bundle, edge, answers, time_file)
        make_version = refuse_version
    else:
        load = library.load
        resources = Resources(bundle.sections, load, answer_log=answers, time_file=time_file)
        opened, make_version = Edge(bundle, edge, resources), edge.make_version
    rollout = RolloutNode(settings.site, settings.node, edge.versions, make_version, library)
    return replace(opened, machine=CompositeMachine(opened.machine, rollout))


def refuse_version(bundle: str, manifest: Manifest) -> NoReturn:
    """Raise ConfigError: a plan is for one bundle."""
    raise ConfigError(
        "this edge shares a layer by a plan, which is for the bundle in use; plan for the new "
        "bundle, and start the site's nodes with both"
    )


def make_announcements(settings: EdgeSettings, manifest: Manifest) -> list[tuple[str, bytes]]:
    """Make the messages by which the lead edge announces itself to Home Assistant."""
    hierarchy = manifest.hierarchy
    if not settings.home_assistant or settings.node != hierarchy.lead:
        return []
    entities = make_discovery(
        settings.home_assistant,
        settings.site,
        model=manifest.name,
        classes=manifest.classes,
        edges=[group.id for group in hierarchy.edges],
        devices=hierarchy.devices,
        version=find_ddnn_version(),
        expire_s=settings.home_assistant_expire_s,
    )
    return [(topic, msgspec.json.encode(payload)) for topic, payload in entities]


def run(settings: EdgeSettings) -> None:
    """Run the edge until SIGINT or SIGTERM."""
    lock = StateLock(Path(settings.state), settings.node)
    answers = FileAnswerLog(Path(settings.state) / f"{settings.node}.answers")
    edge = open_edge(settings, answers)
    if edge.summary:
        log.info("%s", edge.summary)
    identity = Identity(
        settings.site, settings.node, "edge", edge.bundle.id, find_ddnn_version(), lock.instance
    )
    announced = make_announcements(settings, edge.bundle.manifest)
    machine = edge.machine
    if announced:
        machine = LatestAnswer(machine, settings.site, settings.node, reach=True)
    loop = Loop(
        identity,
        CompositeMachine(machine, RecordingNotice(settings.site)),
        MqttTransport.of(settings, instance=lock.instance),
        edge.resources,
        announcements=announced,
        guard=open_guard(settings),
        stats_every_s=settings.stats_every_s,
    )
    watch = None
    if edge.plans is not None and edge.plan is not None:
        refuse = partial(log.error, "the new plan is not used: %s")
        watch = PlanWatch(edge.plans, edge.plan.id, loop.take_plan, refuse)
        watch.start()
    try:
        run_until_signal(loop)
    finally:
        if watch is not None:
            watch.close()
