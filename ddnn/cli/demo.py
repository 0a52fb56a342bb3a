"""`ddnn demo`: the whole hierarchy as real processes on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import msgspec
import numpy as np

from ddnn.adapters import broker as brokers
from ddnn.adapters.command import exit_codes
from ddnn.adapters.mqtt import DrivenTransport, MqttTransport
from ddnn.cli.control import Control
from ddnn.cli.plan import REDUNDANCIES
from ddnn.core.ids import tick_of
from ddnn.errors import ConfigError, DdnnError, LinkError, RemoteProtocolError
from ddnn.exits.answers import better
from ddnn.exits.hierarchy import CLOUD, CONFIGURATIONS
from ddnn.protocol import topics
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.messages import (
    Answer,
    Backlog,
    ExitName,
    OffloadState,
    Stats,
    Status,
    Thresholds,
    drops,
)
from ddnn.protocol.topics import Kind, Topic, topic_filter
from ddnn.runtime.answer_log import read_answers
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.transport import Arrived, LinkEvent, LinkUp

if TYPE_CHECKING:
    from ddnn.exits.manifest import Manifest

SITE = "demo"
BROKER = "broker"
DASHBOARD = "dashboard"  # shows and records, so that the page lives on when the cloud is killed
READY_S = 30.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
GRACE_S = 6.0  # after the last deadline: late deliveries of nodes that were away
EPILOG = """\b
Examples:
  ddnn demo                                   live, until Ctrl-C
  ddnn demo --headless --samples 200 --json   one JSON object
  ddnn demo --headless --samples 200 --kill cam3@100 --restart cam3@150
  ddnn demo --redundancy coded --workers 6 --tolerate 2 --threshold local=0 --kill worker1@40
"""


@click.command(epilog=EPILOG)
@click.option("--data", default="scenes", show_default=True, help="NAME[:PATH] of the data set.")
@click.option("--devices", default=6, show_default=True, help="How many cameras.")
@click.option(
    "--configuration",
    type=click.Choice(CONFIGURATIONS),
    default="e",
    show_default=True,
    help="The paper's Fig. 2, a to f.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=None,
    help="Bundle to run; by default one is trained once and kept.",
)
@click.option(
    "--broker",
    type=click.Choice(["auto", "mosquitto", "embedded"]),
    default="auto",
    show_default=True,
    help="auto: Mosquitto if it is installed.",
)
@click.option("--headless", is_flag=True, help="No live view; ends after --samples.")
@click.option("--samples", type=int, default=None, help="End after so many samples [headless: 100]")
@click.option("--rate", "rate_hz", default=10.0, show_default=True, help="Samples per second.")
@click.option(
    "--kill",
    "kills",
    multiple=True,
    metavar="NODE@N",
    help="SIGKILL a node (cam1 …, worker1 …, edge, cloud, broker) after N samples.",
)
@click.option(
    "--restart",
    "restarts",
    multiple=True,
    metavar="NODE@N",
    help="Start a killed node again after N samples.",
)
@click.option(
    "--redundancy",
    type=click.Choice(["off", *REDUNDANCIES]),
    default="off",
    show_default=True,
    help="Share the edge's heavy layer among workers; see `ddnn plan`.",
)
@click.option(
    "--workers",
    default=None,
    type=int,
    help="How many workers share the layer: worker1 … [6 with --redundancy]",
)
@click.option(
    "--tolerate", default=None, type=int, help="So many of them may vanish [1, of none 0]"
)
@click.option("--layer", default="", help="Layer to share [the heaviest]")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="EXIT=T",
    help="Another threshold than the bundle's: local=0 sends every sample to the edge.",
)
@click.option("--deadline-s", default=1.0, show_default=True, help="Deadline of a sample.")
@click.option("--window-s", default=0.12, show_default=True, help="Wait for members per stage.")
@click.option("--broker-port", default=None, type=int, help="Port of the broker [a free one]")
@click.option("--http-port", default=None, type=int, help="Port of the page [8080, or a free one]")
@click.option("--seed", default=0, show_default=True, help="Seed of data and training.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def demo(**options: Any) -> None:
    """Run broker, cloud, edge and cameras on this machine, and watch them answer."""
    with exit_codes():
        report = run_demo(**options)
        if options["as_json"]:
            click.echo(json.dumps(report))
        elif options["headless"]:
            for key, value in report.items():
                click.echo(f"{key:28} {value}")


@dataclass(slots=True)
class Plan:
    """What to run and what to do to it."""

    manifest: Manifest
    bundle: Path
    frames: Path
    labels: Any
    sharing: Path | None = None  # the plan by which the edge shares its layer
    section: str = ""  # of that edge
    workers: list[str] = field(default_factory=list)
    command: Thresholds | None = None
    actions: list[tuple[int, str, str]] = field(default_factory=list)  # after N, what, node


def run_demo(
    *,
    data: str,
    devices: int,
    configuration: Any,
    bundle: Path | None,
    broker: str,
    headless: bool,
    samples: int | None,
    rate_hz: float,
    kills: tuple[str, ...],
    restarts: tuple[str, ...],
    deadline_s: float,
    window_s: float,
    broker_port: int | None,
    http_port: int | None,
    seed: int,
    redundancy: str = "off",
    workers: int | None = None,
    tolerate: int | None = None,
    layer: str = "",
    thresholds: tuple[str, ...] = (),
    as_json: bool = False,
) -> dict[str, Any]:
    """See `demo`; the report that --json prints."""
    kind = brokers.choose(broker)
    if headless and samples is None:
        samples = 100
    if samples is not None and samples < 1:
        raise ConfigError(f"--samples {samples}: expected 1 or more")
    if not 0 < rate_hz <= 1000:
        raise ConfigError(f"--rate {rate_hz}: expected above 0, up to 1000 per second")
    if redundancy == "off" and (workers, tolerate, layer) != (None, None, ""):
        raise ConfigError("--workers, --tolerate and --layer need --redundancy, such as coded")
    if redundancy != "off" and bundle is None and configuration in "abc":
        raise ConfigError(
            f"--configuration {configuration}: its edge has no section to share; use d, e or f"
        )
    plan = prepare(data, devices, configuration, bundle, seed, cut=redundancy != "off")
    if redundancy != "off":
        share(plan, redundancy, 6 if workers is None else workers, tolerate, layer)
    plan.command = command_of(plan, thresholds)
    plan.actions = sorted(
        [*(_action("kill", text) for text in kills), *(_action("start", t) for t in restarts)]
    )
    hierarchy = plan.manifest.hierarchy
    edges = [group.id for group in hierarchy.edges]
    nodes = [BROKER, DASHBOARD, CLOUD, *edges, *hierarchy.devices, *plan.workers]
    for _, _, node in plan.actions:
        if node not in nodes:
            raise ConfigError(
                f"--kill/--restart {node}: no such node; there are {', '.join(nodes)}"
            )
    with ExitStack() as stack:
        stack.enter_context(_terminated_cleanly())
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-demo-")))
        site = Site(
            plan,
            kind,
            state,
            rate_hz=rate_hz,
            deadline_s=deadline_s,
            window_s=window_s,
            broker_port=broker_port or brokers.free_port(),
            http_port=http_port or (8080 if _port_free(8080) else brokers.free_port()),
        )
        stack.callback(site.close)
        site.start()
        _say(f"all nodes are up; page on {site.page} (loopback only, so it asks for no password)")
        if plan.workers and plan.command is None:
            _say("only samples that reach the edge use its workers; --threshold local=0: all do")
        return watch(site, samples, headless)


# ------------------------------------------------------------------ prepare


def home() -> Path:
    """Where trained bundles are kept: $DDNN_HOME, or the user's data directory."""
    given = os.environ.get("DDNN_HOME")
    if given:
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "ddnn"


def prepare(
    data: str, devices: int, configuration: Any, bundle: Path | None, seed: int, cut: bool = False
) -> Plan:
    """The bundle (trained if there is none yet) and the test frames for the cameras.

    cut: its edge section shall be cut, for which a bundle of an earlier version is trained anew.
    """
    from ddnn.cli.evaluate import judged_split
    from ddnn.cli.train import train_bundle

    name = data.partition(":")[0]
    if bundle is None:
        members = 1 if configuration in "bd" else devices
        bundle = home() / "bundles" / f"{name}-{configuration}-{members}-seed{seed}"
        if cut and (bundle / "manifest.json").exists() and not read_manifest(bundle)[0].sources:
            _say("the bundle is of an earlier version, which kept nothing to cut")
            shutil.rmtree(bundle)
        if not (bundle / "manifest.json").exists():
            _say(f"no bundle yet: training one into {bundle}")
            bundle.mkdir(parents=True, exist_ok=True)
            train_bundle(
                data=data, out=bundle, configuration=configuration, devices=devices, seed=seed
            )
    manifest, bundle_id = read_manifest(bundle)
    frames = home() / "frames" / f"{name}-{bundle_id}"
    labels = frames / "labels.npy"
    if not labels.exists():
        _say("preparing the cameras' frames")
        split = judged_split(manifest, data)
        frames.mkdir(parents=True, exist_ok=True)
        np.save(frames / "images.npy", split.images)
        np.save(frames / "view_labels.npy", split.view_labels)
        fresh = frames / "labels.new.npy"
        np.save(fresh, split.labels)
        fresh.replace(labels)
    return Plan(manifest, bundle, frames, np.load(labels, allow_pickle=False))


def share(plan: Plan, redundancy: str, workers: int, tolerate: int | None, layer: str) -> None:
    """Plan how the edge shares its layer; kept beside the bundles, for it takes some seconds."""
    from ddnn.cli.plan import named, plan_bundle
    from ddnn.runtime.deployment import read_plan

    bundle_id = read_manifest(plan.bundle)[1]
    lost = "default" if tolerate is None else tolerate
    name = f"{bundle_id}-{redundancy}-{workers}-{lost}-{layer or 'heaviest'}"
    plan.sharing = home() / "plans" / name
    try:
        deployment = read_plan(plan.sharing, bundle_id).deployment
    except ConfigError:  # none yet, or one of another version
        _say(f"planning {redundancy} redundancy on {workers} workers")
        deployment, _ = plan_bundle(
            plan.bundle,
            plan.sharing,
            redundancy=redundancy,
            power=named(str(workers)),
            tolerate=tolerate,
            layer=layer,
        )
    plan.section, plan.workers = deployment.section, list(deployment.workers)


def command_of(plan: Plan, thresholds: tuple[str, ...]) -> Thresholds | None:
    """The command that --threshold stands for, checked."""
    chosen: dict[str, float] = {}
    for text in thresholds:
        tier, _, value = text.partition("=")
        try:
            chosen[tier] = float(value)
        except ValueError:
            raise ConfigError(f"--threshold {text!r}: expected EXIT=T, such as local=0") from None
    if not chosen:
        return None
    plan.manifest.with_thresholds(chosen)  # refuses what does not fit
    bundle = read_manifest(plan.bundle)[1]
    return Thresholds(bundle, cast(dict[ExitName, float], chosen), revision=1)


class Site:
    """Broker, cloud, edges and devices as processes of this machine."""

    def __init__(
        self,
        plan: Plan,
        kind: brokers.Kind,
        state: Path,
        *,
        rate_hz: float = 10.0,
        deadline_s: float = 1.0,
        window_s: float = 0.12,
        broker_port: int | None = None,
        http_port: int,
    ) -> None:
        self.plan, self.kind, self.state = plan, kind, state
        self.rate_hz, self.deadline_s, self.window_s = rate_hz, deadline_s, window_s
        self.port = broker_port or brokers.free_port()
        self.http_port = http_port
        self.page = f"http://127.0.0.1:{http_port}/"
        self.fleet = Fleet(state / "logs")
        self.control = Control(self.fleet, frozenset({DASHBOARD}))
        self.watcher = Watcher(self.port, self._version, plan.command, plan.manifest.hierarchy.lead)

    @property
    def _version(self) -> str:
        return "5" if self.kind == "mosquitto" else "3.1.1"

    def start(self) -> None:
        """Start everything; returns once all nodes are online."""
        self.fleet.start(BROKER, brokers.command(self.kind, self.port, self.state))
        try:
            brokers.wait_until_listening(self.port)
        except LinkError:
            raise LinkError(f"the broker did not start: {self.fleet.tail(BROKER)}") from None
        self.watcher.start()
        hierarchy = self.plan.manifest.hierarchy
        database = ("--database", f"sqlite:///{self.state / 'site.db'}")
        self._app(
            DASHBOARD,
            "cloud_app",
            "--serve",
            "page",
            "--http-port",
            str(self.http_port),
            "--sign-in",
            "off",
            "--demo-frames",
            str(self.plan.frames),
            *database,
            env={"DDNN_DEMO_CONTROL": self.control.url},
        )
        self._app(CLOUD, "cloud_app", "--serve", "node", *database)
        sharing = ("--plan", str(self.plan.sharing))
        for group in hierarchy.edges:
            shares = group.id == self.plan.section
            self._app(group.id, "edge_app", *(("--redundancy", "on", *sharing) if shares else ()))
        for worker in self.plan.workers:
            self._app(worker, "device_app", "--lend", "on", *sharing)
        frames = ("--source", f"frames:{self.plan.frames}", "--rate-hz", str(self.rate_hz))
        if self.plan.workers:  # before the first sample
            sharers = [self.plan.section, *self.plan.workers]
            self.watcher.wait_for(self.fleet, sharers, READY_S)
            self.watcher.wait_for_shards(READY_S)
        for device in hierarchy.devices:
            self._app(device, "device_app", *frames)
        self.watcher.wait_for(self.fleet, self.fleet.nodes[1:], READY_S)

    def _app(
        self, node: str, module: str, *more: str, env: Mapping[str, str] | None = None
    ) -> None:
        command = [
            sys.executable,
            "-m",
            module,
            "--node",
            node,
            "--site",
            SITE,
            "--bundle",
            str(self.plan.bundle),
            "--state",
            str(self.state),
            "--broker-port",
            str(self.port),
            "--mqtt",
            self._version,
            "--deadline-s",
            str(self.deadline_s),
            "--window-s",
            str(self.window_s),
            "--stats-every-s",
            "1",
            *more,
        ]
        self.fleet.start(node, command, {"OMP_NUM_THREADS": "1", **(env or {})})

    def tick(self, later_s: float = 0.0) -> int:
        """The sample that is being captured now, or in a while."""
        return tick_of(time.time() + later_s, 1 / self.rate_hz)

    def stored(self, wanted: range) -> list[StoredAnswer]:
        """What the cloud's database holds of these samples; nothing if the cloud is away."""
        found: list[StoredAnswer] = []
        first = wanted.start
        while first < wanted.stop:
            query = f"api/v1/answers?site={SITE}&first={first}&last={wanted.stop - 1}"
            try:
                with _DIRECT.open(self.page + query, timeout=5) as response:
                    page = msgspec.json.decode(response.read(), type=list[StoredAnswer])
            except OSError:
                break
            if not page:
                break
            found += page
            first = page[-1].answer.sample + 1
        return found

    def spooled(self) -> list[Answer]:
        """What the nodes still keep on their disks."""
        return [a for file in self.state.glob("*.answers") for a in read_answers(file)]

    def close(self) -> None:
        self.watcher.close()
        self.control.close()
        self.fleet.close()


class StoredAnswer(msgspec.Struct, frozen=True):
    """A sample in the cloud's database."""

    answer: Answer
    first_answered_at_s: float


# -------------------------------------------------------------------- watch


class Watcher:
    """Listens to everything that is said; keeps the best answer per sample, as the store does."""

    def __init__(
        self, port: int, version: str, command: Thresholds | None = None, lead: str = ""
    ) -> None:
        """command: for the lead edge, retained."""
        self._command = (lead, command)
        self.lock = threading.Lock()
        self.answers: dict[int, Answer] = {}
        self.first_s: dict[int, float] = {}  # when any answer to a sample was first given
        self.online: set[str] = set()
        self.stats: dict[str, Stats] = {}
        self.sharing: OffloadState | None = None
        self._transport = DrivenTransport(MqttTransport("demo-watcher", port=port, version=version))

    def start(self) -> None:
        self._transport.start(self._sink, lambda session: (f"ddnn/demo-watcher/{SITE}", b""))

    def _sink(self, event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            kinds = (Kind.ANSWER, Kind.BACKLOG, Kind.STATUS, Kind.STATS, Kind.OFFLOAD)
            self._transport.subscribe([topic_filter(kind, SITE) for kind in kinds])
            lead, command = self._command
            if command is not None:
                to_lead = str(Topic(SITE, Kind.THRESHOLDS, lead))
                self._transport.publish(to_lead, encode(command), 1, True)
        elif isinstance(event, Arrived):
            try:
                topic = topics.parse(event.topic)
                message = decode(topic.kind, event.payload)
            except RemoteProtocolError:
                return
            with self.lock:
                self._take(topic.node, message)

    def _take(self, node: str, message: object) -> None:
        match message:
            case Answer():
                self.add(message)
            case Backlog(answers):
                for answer in answers:
                    self.add(answer)
            case Status(state=state):
                (self.online.add if state == "online" else self.online.discard)(node)
            case Stats():
                self.stats[node] = message
            case OffloadState():
                self.sharing = message

    def add(self, answer: Answer, first_s: float | None = None) -> None:
        old = self.answers.get(answer.sample)
        self.answers[answer.sample] = answer if old is None else better(old, answer)
        given_s = answer.answered_at_s if first_s is None else first_s
        self.first_s[answer.sample] = min(given_s, self.first_s.get(answer.sample, given_s))

    def wait_for(self, fleet: Fleet, nodes: list[str], timeout_s: float) -> None:
        """Until all nodes are online; an error names the one that is not, and its last words."""
        until_s = time.monotonic() + timeout_s
        while missing := [node for node in nodes if node not in self.online]:
            for node in missing:
                fleet.check(node)
            if time.monotonic() > until_s:
                raise DdnnError(f"{missing[0]} is not up: {fleet.tail(missing[0])}")
            time.sleep(0.02)

    def wait_for_shards(self, timeout_s: float) -> None:
        """Until every worker has loaded its shards."""
        until_s = time.monotonic() + timeout_s
        while self.sharing is None or self.sharing.live_pieces < self.sharing.pieces:
            if time.monotonic() > until_s:
                workers = self.sharing.workers if self.sharing else {}
                states = ", ".join(f"{name} {worker.state}" for name, worker in workers.items())
                raise DdnnError(f"not all shards are loaded: {states or 'the edge is silent'}")
            time.sleep(0.02)

    def close(self) -> None:
        self._transport.close()


def watch(site: Site, samples: int | None, headless: bool) -> dict[str, Any]:
    """Let the samples pass, kill and start what was asked for, and report."""
    from ddnn.cli.live import live_view

    first = site.tick(0.5) + 1
    passed = 0
    actions = list(site.plan.actions)
    try:
        with live_view(site, enabled=not headless) as refresh:
            while samples is None or passed < samples:
                refresh()
                time.sleep(min(0.05, 1 / site.rate_hz))
                passed = max(0, site.tick() - first)
                while actions and passed >= actions[0][0]:
                    _act(site, *actions.pop(0))
    except KeyboardInterrupt:
        samples = passed
    wanted = range(first, first + (samples or 0))
    settle(site, wanted)
    stored = site.stored(wanted)
    delivered = {record.answer.sample for record in stored} | set(site.watcher.answers)
    for record in stored:
        site.watcher.add(record.answer, record.first_answered_at_s)
    for answer in site.spooled():
        site.watcher.add(answer)
    return report(site, wanted, delivered)


def _act(site: Site, after: int, what: str, node: str) -> None:
    _say(f"{what} {node} after {after} samples")
    if what == "kill":
        site.fleet.signal(node, signal.SIGKILL)
    elif not site.fleet.alive(node):
        site.fleet.start(node)


def settle(site: Site, wanted: range) -> None:
    """Wait until every sample has an answer, at most for the deadline and a grace."""
    deadline_s = time.monotonic() + site.deadline_s
    give_up_s = deadline_s + GRACE_S
    while time.monotonic() < give_up_s:
        over = time.monotonic() > deadline_s
        if over and not site.fleet.alive(BROKER):
            return  # nothing more can be delivered: the devices have answered for themselves
        with site.watcher.lock:
            answered = all(sample in site.watcher.answers for sample in wanted)
        if over and answered:
            return
        time.sleep(0.05)


def report(site: Site, wanted: range, delivered: set[int]) -> dict[str, Any]:
    """The figures of `ddnn demo --json`."""
    watcher, plan, manifest = site.watcher, site.plan, site.plan.manifest
    answers = [watcher.answers[sample] for sample in wanted if sample in watcher.answers]
    truth = {sample: int(plan.labels[sample % len(plan.labels)]) for sample in wanted}
    members = len(manifest.hierarchy.devices)

    def right(chosen: list[Answer]) -> float | None:
        return _mean([answer.label == truth[answer.sample] for answer in chosen])

    by_exit = {
        tier: [a for a in answers if a.exit == tier]
        for tier in ("local", "edge", "cloud", "device")
    }
    payload = _mean([a.payload_bytes / members for a in answers if a.exit != "device"])
    wire = _mean([a.wire_bytes / members for a in answers if a.exit != "device"])
    dropped: dict[str, int] = {}
    for stats in watcher.stats.values():
        for name, count in drops(stats.counts).items():
            dropped[name] = dropped.get(name, 0) + count
    on_time = [watcher.first_s[a.sample] - a.captured_at_s <= site.deadline_s for a in answers]
    return {
        "samples": len(wanted),
        "answered": len(answers),
        "answered_by_deadline": int(sum(on_time)),
        "undelivered": sum(sample not in delivered for sample in wanted),
        "accuracy": {**{t: right(a) for t, a in by_exit.items()}, "overall": right(answers)},
        "expected_accuracy": _mean(
            [a.expected_accuracy for a in answers if a.expected_accuracy is not None]
        ),
        "exit_share": {t: len(a) / max(1, len(answers)) for t, a in by_exit.items()},
        "bytes_per_sample_per_device": {"payload": payload, "wire": wire},
        "raw_bytes": manifest.raw_bytes,
        "reduction": manifest.raw_bytes / payload if payload else None,
        "latency_ms": {
            tier: {
                "p50": round(float(np.percentile([1e3 * x.latency_s for x in a], 50)), 3),
                "p99": round(float(np.percentile([1e3 * x.latency_s for x in a], 99)), 3),
            }
            for tier, a in by_exit.items()
            if a
        },
        "quality": {
            "full": sum(a.quality == "full" for a in answers),
            "degraded": sum(a.quality == "degraded" for a in answers),
            "late": sum(a.late for a in answers),
        },
        "drops": dropped,
        "bundle": manifest.name,
        **({"sharing": shared(watcher.sharing)} if watcher.sharing else {}),
    }


def shared(sharing: OffloadState) -> dict[str, Any]:
    """How the shared layer was computed, by the edge's last word."""
    return {
        "title": sharing.title,
        "description": sharing.description,
        "pieces": sharing.pieces,
        "combined": sharing.combined,
        "computed_here": sharing.computed_here,
        "given_up": sharing.given_up,
        "gather_ms": round(sharing.gather_ms, 3),
        "combine_ms": round(sharing.combine_ms, 4),
        "workers": {
            name: {"state": worker.state, "used": worker.used, "late": worker.late}
            for name, worker in sharing.workers.items()
        },
    }


# ------------------------------------------------------------------ helpers


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None


def _action(what: str, text: str) -> tuple[int, str, str]:
    node, at, count = text.partition("@")
    if not at or not count.isdecimal():
        raise ConfigError(f"--{what} {text!r}: expected NODE@N, such as cam3@100")
    return int(count), what, node


def _port_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """SIGTERM and a lost terminal end the demo as Ctrl-C does: no process is left behind."""

    def raise_interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, raise_interrupt) for number in numbers]
    try:
        yield
    except KeyboardInterrupt:
        raise DdnnError("interrupted before all nodes were up") from None
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _say(text: str) -> None:
    click.echo(f"ddnn: {text}", err=True)
