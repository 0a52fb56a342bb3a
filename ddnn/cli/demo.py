"""`ddnn demo`: the whole hierarchy as real processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ddnn.adapters import broker as brokers
from ddnn.adapters.command import exit_codes
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.ids import tick_of
from ddnn.errors import ConfigError, DdnnError, LinkError, RemoteProtocolError
from ddnn.exits.answers import better
from ddnn.exits.hierarchy import CLOUD, CONFIGURATIONS
from ddnn.protocol import topics
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer, Backlog, Stats, Status
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.answer_log import read_answers
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.transport import Arrived, LinkEvent, LinkUp

if TYPE_CHECKING:
    from ddnn.exits.manifest import Manifest

SITE = "demo"
BROKER = "broker"
READY_S = 30.0
GRACE_S = 6.0  # after the last deadline: late deliveries of nodes that were away
EPILOG = """\b
Examples:
  ddnn demo                                   live, until Ctrl-C
  ddnn demo --headless --samples 200 --json   one JSON object
  ddnn demo --headless --samples 200 --kill cam3@100 --restart cam3@150
"""


@click.command(epilog=EPILOG)
@click.option("--data", default="scenes", show_default=True, help="NAME[:PATH] of the data set.")
@click.option("--devices", default=6, show_default=True, help="How many cameras.")
@click.option("--configuration", type=click.Choice(CONFIGURATIONS), default="e", show_default=True,
              help="The paper's Fig. 2, a to f.")  # fmt: skip
@click.option("--bundle", type=click.Path(path_type=Path), default=None,
              help="Bundle to run; by default one is trained once and kept.")  # fmt: skip
@click.option("--broker", type=click.Choice(["auto", "mosquitto", "embedded"]), default="auto",
              show_default=True, help="auto: Mosquitto if it is installed.")  # fmt: skip
@click.option("--headless", is_flag=True, help="No live view; ends after --samples.")
@click.option("--samples", type=int, default=None, help="End after so many samples [headless: 100]")
@click.option("--rate", "rate_hz", default=10.0, show_default=True, help="Samples per second.")
@click.option("--kill", "kills", multiple=True, metavar="NODE@N",
              help="SIGKILL a node (cam1 …, edge, cloud, broker) after N samples.")  # fmt: skip
@click.option("--restart", "restarts", multiple=True, metavar="NODE@N",
              help="Start a killed node again after N samples.")  # fmt: skip
@click.option("--deadline-s", default=1.0, show_default=True, help="Deadline of a sample.")
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
    http_port: int | None,
    seed: int,
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
    plan = prepare(data, devices, configuration, bundle, seed)
    plan.actions = sorted(
        [*(_action("kill", text) for text in kills), *(_action("start", t) for t in restarts)]
    )
    hierarchy = plan.manifest.hierarchy
    nodes = [BROKER, CLOUD, *(group.id for group in hierarchy.edges), *hierarchy.devices]
    for _, _, node in plan.actions:
        if node not in nodes:
            raise ConfigError(
                f"--kill/--restart {node}: no such node; there are {', '.join(nodes)}"
            )
    with ExitStack() as stack:
        stack.enter_context(_terminated_cleanly())
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-demo-")))
        fleet = Fleet(state / "logs")
        stack.callback(fleet.close)
        port = brokers.free_port()
        http_port = http_port or (8080 if _port_free(8080) else brokers.free_port())
        start(fleet, plan, kind, port, http_port, state, rate_hz, deadline_s)
        watcher = Watcher(port, "5" if kind == "mosquitto" else "3.1.1")
        stack.callback(watcher.close)
        watcher.wait_for(fleet, nodes[1:], READY_S)
        _say(f"all nodes are up; page on http://127.0.0.1:{http_port}/")
        return watch(fleet, watcher, plan, state, samples, rate_hz, deadline_s, headless, http_port)


# ------------------------------------------------------------------ prepare


def home() -> Path:
    """Where trained bundles are kept: $DDNN_HOME, or the user's data directory."""
    given = os.environ.get("DDNN_HOME")
    if given:
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "ddnn"


def prepare(data: str, devices: int, configuration: Any, bundle: Path | None, seed: int) -> Plan:
    """The bundle (trained if there is none yet) and the test frames for the cameras."""
    from ddnn.cli.evaluate import judged_split
    from ddnn.cli.train import train_bundle

    name = data.partition(":")[0]
    if bundle is None:
        members = 1 if configuration in "bd" else devices
        bundle = home() / "bundles" / f"{name}-{configuration}-{members}-seed{seed}"
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


def start(
    fleet: Fleet,
    plan: Plan,
    kind: brokers.Kind,
    port: int,
    http_port: int,
    state: Path,
    rate_hz: float,
    deadline_s: float,
) -> None:
    """All processes: broker, cloud, edges, devices."""
    fleet.start(BROKER, brokers.command(kind, port, state))
    try:
        brokers.wait_until_listening(port)
    except LinkError:
        raise LinkError(f"the broker did not start: {fleet.tail(BROKER)}") from None
    common = [
        "--site", SITE, "--bundle", str(plan.bundle), "--broker-port", str(port),
        "--state", str(state), "--stats-every-s", "1", "--deadline-s", str(deadline_s),
        "--mqtt", "5" if kind == "mosquitto" else "3.1.1",
    ]  # fmt: skip
    environment = {"OMP_NUM_THREADS": "1"}

    def app(node: str, module: str, *more: str) -> None:
        command = [sys.executable, "-m", module, "--node", node, *common, *more]
        fleet.start(node, command, environment)

    app(CLOUD, "cloud_app", "--http-port", str(http_port))
    for group in plan.manifest.hierarchy.edges:
        app(group.id, "edge_app")
    for device in plan.manifest.hierarchy.devices:
        app(device, "device_app", "--source", f"frames:{plan.frames}", "--rate-hz", str(rate_hz))


# -------------------------------------------------------------------- watch


class Watcher:
    """Listens to everything that is said; keeps the best answer per sample, as the store does."""

    def __init__(self, port: int, version: str) -> None:
        self.lock = threading.Lock()
        self.answers: dict[int, Answer] = {}
        self.first_s: dict[int, float] = {}  # when any answer to a sample was first given
        self.online: set[str] = set()
        self.stats: dict[str, Stats] = {}
        self._transport = MqttTransport("demo-watcher", port=port, version=version)
        self._transport.start(self._sink, lambda session: (f"ddnn/demo-watcher/{SITE}", b""))

    def _sink(self, event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            kinds = (Kind.RESULT, Kind.BACKLOG, Kind.STATUS, Kind.STATS)
            self._transport.subscribe([topic_filter(kind, SITE) for kind in kinds])
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

    def add(self, answer: Answer) -> None:
        old = self.answers.get(answer.sample)
        self.answers[answer.sample] = answer if old is None else better(old, answer)
        first_s = self.first_s.get(answer.sample, answer.answered_at_s)
        self.first_s[answer.sample] = min(first_s, answer.answered_at_s)

    def wait_for(self, fleet: Fleet, nodes: list[str], timeout_s: float) -> None:
        """Until all nodes are online; an error names the one that is not, and its last words."""
        until_s = time.monotonic() + timeout_s
        while missing := [node for node in nodes if node not in self.online]:
            for node in missing:
                fleet.check(node)
            if time.monotonic() > until_s:
                raise DdnnError(f"{missing[0]} is not up: {fleet.tail(missing[0])}")
            time.sleep(0.02)

    def close(self) -> None:
        self._transport.close()


def watch(
    fleet: Fleet,
    watcher: Watcher,
    plan: Plan,
    state: Path,
    samples: int | None,
    rate_hz: float,
    deadline_s: float,
    headless: bool,
    http_port: int,
) -> dict[str, Any]:
    """Let the samples pass, kill and start what was asked for, and report."""
    from ddnn.cli.live import live_view

    period_s = 1 / rate_hz
    first = tick_of(time.time() + max(0.5, 2 * period_s), period_s) + 1
    actions = list(plan.actions)
    with live_view(watcher, fleet, plan.manifest, http_port, enabled=not headless) as refresh:
        while True:
            passed = tick_of(time.time(), period_s) - first
            while actions and passed >= actions[0][0]:
                _, what, node = actions.pop(0)
                _say(f"{what} {node} after {passed} samples")
                if what == "kill":
                    fleet.signal(node, signal.SIGKILL)
                elif not fleet.alive(node):
                    fleet.start(node)
            if samples is not None and passed >= samples:
                break
            try:
                refresh()
                time.sleep(min(0.05, period_s))
            except KeyboardInterrupt:
                samples = max(0, passed)
                break
    wanted = range(first, first + (samples or 0))
    settle(watcher, wanted, deadline_s, fleet)
    spooled = [answer for file in state.glob("*.answers") for answer in read_answers(file)]
    with watcher.lock:
        seen = set(watcher.answers)
        for answer in spooled:
            watcher.add(answer)
    return report(watcher, plan, wanted, seen, deadline_s)


def settle(watcher: Watcher, wanted: range, deadline_s: float, fleet: Fleet) -> None:
    """Wait until every sample has an answer, at most for the deadline and a grace."""
    until_s = time.monotonic() + deadline_s + GRACE_S
    ends_s = time.monotonic() + deadline_s
    while time.monotonic() < until_s:
        with watcher.lock:
            done = all(sample in watcher.answers for sample in wanted)
        if (done and time.monotonic() > ends_s) or not fleet.alive(BROKER):
            break
        time.sleep(0.05)
    if not fleet.alive(BROKER):  # nothing more can be delivered: the devices answer for themselves
        time.sleep(max(0.0, ends_s - time.monotonic()))


def report(
    watcher: Watcher, plan: Plan, wanted: range, delivered: set[int], deadline_s: float
) -> dict[str, Any]:
    """The figures of `ddnn demo --json`."""
    manifest = plan.manifest
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
    drops: dict[str, int] = {}
    for stats in watcher.stats.values():
        for name, count in stats.counts.items():
            if not name.startswith(("exit_", "messages_", "bytes_", "answers")):
                drops[name] = drops.get(name, 0) + count
    on_time = [watcher.first_s[a.sample] - a.captured_at_s <= deadline_s for a in answers]
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
        "drops": drops,
        "bundle": manifest.name,
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
    """SIGTERM ends the demo as Ctrl-C does, so that no process is left behind."""

    def raise_interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, raise_interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise DdnnError("interrupted before all nodes were up") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    click.echo(f"ddnn: {text}", err=True)
