"""Wires the edge's machine to its section and a broker connection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
import msgspec

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.manifest import Manifest
from ddnn.protocol.home_assistant import make_discovery, require_prefix
from ddnn.protocol.machine import Event, Machine
from ddnn.protocol.messages import Answer
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import Bundle, load_bundle, read_manifest
from ddnn.runtime.loop import Identity, Loop
from ddnn.runtime.service import ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings

if TYPE_CHECKING:
    from ddnn.coding.sharing_node import SharingNode

log = logging.getLogger(__name__)


class EdgeSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of edge_app."""

    home_assistant: Annotated[
        str,
        msgspec.Meta(
            description="Discovery prefix of Home Assistant, such as homeassistant; empty: off."
        ),
    ] = ""

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
            description="All live workers are waited for so long; then, or at once with 0, any "
            "answers that suffice are decoded.",
            ge=0,
        ),
    ] = 0.0
    layer_timeout_s: Annotated[
        float,
        msgspec.Meta(
            description="A layer that workers have not computed within this is computed here; 0: "
            "half of --window-s.",
            ge=0,
        ),
    ] = 0.0
    layer_here: Annotated[
        Literal["on", "off"],
        msgspec.Meta(
            description="on: compute the layer here where the workers do not suffice; off: "
            "such samples are answered by a shallower exit."
        ),
    ] = "on"

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


def load(settings: EdgeSettings) -> Bundle:
    """The bundle with this edge's section; ConfigError where it knows no such edge."""
    path = Path(settings.bundle)
    hierarchy = read_manifest(path)[0].hierarchy
    hierarchy.group(settings.node)
    whole = hierarchy.edge_section and (settings.redundancy == "off" or settings.layer_here == "on")
    return load_bundle(path, LiteRtSection, [settings.node] if whole else [])


@dataclass(frozen=True, slots=True)
class Edge:
    """The machine, all sections that it runs, and what watches for workers of other plans."""

    bundle: Bundle
    machine: Machine
    sections: dict[str, Section]
    observe: Callable[[Event], None] | None = None
    report: Callable[[], tuple[Mapping[str, int], Mapping[str, float]]] | None = None
    says: str = ""


def share(settings: EdgeSettings, bundle: Bundle, edge: Machine) -> Edge:
    """The edge with a machine that shares its layer."""
    try:
        # These need scipy, which only edges that share a layer install.
        from ddnn.coding.deployment import HEAD, TAIL
        from ddnn.coding.sharing_node import SharingNode
        from ddnn.runtime.deployment import DIRECTORY, OtherPlans, read_plan
    except ImportError as error:
        raise ConfigError(
            f"--redundancy on needs scipy ({error}): pip install 'ddnn[coding]'"
        ) from None
    plan = read_plan(Path(settings.plan or Path(settings.bundle) / DIRECTORY), bundle.id)
    if plan.deployment.section != settings.node:
        raise ConfigError(
            f"the plan in {plan.path} is for {plan.deployment.section}, not for {settings.node}"
        )
    plan.check_code()
    machine = SharingNode(
        edge,
        settings.site,
        plan.id,
        plan.deployment,
        threshold_s=settings.straggler_threshold_s,
        timeout_s=settings.layer_timeout_s or settings.window_s / 2,
        here=settings.layer_here == "on",
        stopwatch=time.perf_counter,
    )
    sections = {**bundle.sections, **plan.load(LiteRtSection, HEAD, TAIL)}
    of = plan.deployment
    says = f"shares {of.layer} by plan {plan.id} among {', '.join(of.workers)}"
    return Edge(bundle, machine, sections, OtherPlans(plan.id), Notices(machine), says)


class Notices:
    """Logs, as often as statistics are sent, which workers came and went, and what follows."""

    def __init__(self, machine: SharingNode) -> None:
        self._machine = machine
        self._states: dict[str, str] = {}
        self._enough = False

    def __call__(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        for name, worker in self._machine.states().items():
            if self._states.get(name, "lost") != worker.state:
                shards = ", ".join(map(str, worker.pieces)) or "none"
                log.info("worker %s is %s, its shards: %s", name, worker.state, shards)
            self._states[name] = worker.state
        if self._enough and not self._machine.decodable:
            log.warning("the live workers do not suffice: the layer is not shared until they do")
        if not self._enough and self._machine.decodable:
            log.info("the live workers suffice: the layer is shared")
        self._enough = self._machine.decodable
        return {}, {}


def check(settings: EdgeSettings) -> None:
    """Raise a DdnnError where `run` could not start."""
    edge = open_edge(settings)
    settings.check_files()
    if edge.says:
        click.echo(edge.says)


def open_edge(settings: EdgeSettings, pending: Iterable[Answer] = ()) -> Edge:
    """What `run` runs. ConfigError where it could not start."""
    bundle = load(settings)
    edge = EdgeNode(
        settings.site, settings.node, bundle.id, bundle.manifest, settings.timing, pending
    )
    if settings.redundancy == "off":
        return Edge(bundle, edge, bundle.sections)
    return share(settings, bundle, edge)


def announcements(settings: EdgeSettings, manifest: Manifest) -> list[tuple[str, bytes]]:
    """What the lead edge tells Home Assistant at every connect."""
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
        version=ddnn_version(),
    )
    return [(topic, msgspec.json.encode(payload)) for topic, payload in entities]


def run(settings: EdgeSettings) -> None:
    """Run the edge until SIGINT or SIGTERM."""
    answers = FileAnswerLog(Path(settings.state) / f"{settings.node}.answers")
    edge = open_edge(settings, answers.pending)
    if edge.says:
        log.info("%s", edge.says)
    loop = Loop(
        Identity(settings.site, settings.node, "edge", edge.bundle.id, ddnn_version()),
        edge.machine,
        MqttTransport.of(settings),
        edge.sections,
        answer_log=answers,
        observe=edge.observe,
        report=edge.report,
        announce=announcements(settings, edge.bundle.manifest),
        stats_every_s=settings.stats_every_s,
    )
    run_until_signal(loop)
