"""What `ddnn doctor` examines: each method is one hop, in the order in which a node needs them."""

from __future__ import annotations

import ctypes
import functools
import getpass
import operator
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec

from ddnn.adapters.command import read_config
from ddnn.adapters.mqtt import MqttTransport
from ddnn.cli.any_node import NOBODY, read_any_node, shown, visitor
from ddnn.cli.examination import Check, Finding, failed, ok, parted, skipped, warning
from ddnn.errors import ConfigError, DdnnError, LinkError, RemoteProtocolError
from ddnn.exits.device_node import own_section
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.manifest import Manifest
from ddnn.protocol import topics
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.messages import Status, TimeReply, TimeRequest
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime import disk
from ddnn.runtime.bundle import load_bundle, read_manifest
from ddnn.runtime.service import ddnn_version
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

App = Literal["device", "edge", "cloud"]
PROGRAM = {"device": "camera", "edge": "program", "cloud": "database"}  # what its --check opens
REMEDY = {
    "device": "correct --source, or see to the camera",
    "edge": "python -m {app}_app --help tells the keys",
    "cloud": "correct --database, or see to the database",
}
PROGRAM_S = 30.0
VERSIONS = {"auto": ("5", "3.1.1"), "5": ("5",), "3.1.1": ("3.1.1",)}
TCP_S = 5.0
MQTT_S = 4.0  # for each version of MQTT that is tried
ECHO_S = 3.0
ROUNDS = 10
CLOCK_ASKS = 8
CLOCK_S = 1.0  # for an answer of the edge
MOST_SKEW_S = 60.0
LOW_BYTES, WARN_BYTES = 64 << 20, 1 << 30
LOW_FILES, WARN_FILES = 100, 10_000
SET_CLOCK = "set the clock: systemctl enable --now systemd-timesyncd, or chrony"


class Visit:
    """One node's checks; each uses what the earlier ones found."""

    def __init__(self, keys: dict[str, Any], extra: Sequence[str], app: App | None) -> None:
        """`keys`: the options that all nodes have (None: not given), `extra` the app's own."""
        self._file: str | None = keys.get("config")
        self._keys = {key: value for key, value in keys.items() if key != "config"}
        self._extra = list(extra)
        place = self._place()
        # A node without a place in the bundle that lends is a worker, and needs none.
        self.worker = place is None and app in (None, "device") and lends(self._extra, self._file)
        self.app = app or place or ("device" if self.worker else None)
        self.statuses: dict[str, Status] = {}
        self._heard: deque[LinkEvent] = deque()
        self._link: MqttTransport | None = None
        self._program: Program | None = None
        self._connect_s = 0.0

    def checks(self) -> list[Check]:
        common, link = ("configuration",), LinkError.exit_code
        ready = ("configuration", "bundle", "disk")
        return [
            Check("configuration", self.configuration, deadline_s=20.0),
            Check("name", self.name, common, 5.0, link),
            Check("tcp", self.tcp, ("name",), 2 * TCP_S, link),
            Check("mqtt", self.mqtt, ("tcp",), 3 * MQTT_S, link),
            Check("round trip", self.round_trip, ("mqtt",), exit_code=link),
            Check("clock", self.clock, ("round trip",)),
            Check("bundle", self.bundle, common, 30.0),
            Check("disk", self.disk, common),
            Check(PROGRAM[self._program_of], self.program, ready, PROGRAM_S + 5),
            Check("versions", self.versions),
        ]

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._program is not None:
            self._program.close()

    @property
    def _program_of(self) -> App:
        """Whose words describe the program: a worker has no camera."""
        return "edge" if self.worker else self.app or "edge"

    # -------------------------------------------------------------- configuration

    def _place(self) -> App | None:
        """The app that the bundle's hierarchy has the node run; None: it cannot be told."""
        try:
            settings = read_any_node(self._keys, self._file)
            hierarchy = read_manifest(Path(settings.bundle))[0].hierarchy
        except (DdnnError, OSError):
            return None
        if settings.node in hierarchy.devices:
            return "device"
        if any(settings.node == group.id for group in hierarchy.edges):
            return "edge"
        return "cloud" if settings.node == CLOUD else None

    def configuration(self) -> Finding:
        """The common keys here, the app's own by the app: `--check` goes on in the background."""
        try:
            settings = read_any_node(self._keys, self._file)
            if self.app == CLOUD and settings.node == NOBODY:
                settings = read_any_node({**self._keys, "node": CLOUD}, self._file)
            _ = settings.broker_password  # is the file readable?
        except ConfigError as error:
            says, remedy = parted(str(error))
            return failed(says, remedy or "ddnn doctor --help tells the keys of every node")
        self.settings = settings
        if self.app is None and self._extra:
            if settings.bundle:
                read_manifest(Path(settings.bundle))  # it should have told the app
            return failed(
                f"{' '.join(self._extra)}: not a key of every node, and no app is known",
                "correct --node, add --app device, edge or cloud, or correct the option",
            )
        where = f"node {settings.node}, site {settings.site}, broker {settings.broker}"
        if self.app is None:
            return ok(
                f"{where}; no app is known for it, so only what all have in common is examined"
            )
        self._program = Program(self.app, self._command())
        refused = self._program.refused_keys()
        if refused:
            return failed(refused, f"python -m {self.app}_app --help tells the keys")
        return ok(f"{self.app}_app takes it: {where}")

    def _command(self) -> list[str]:
        flags = [
            text
            for key, value in [("config", self._file), *self._keys.items()]
            if value is not None
            for text in ("--" + key.replace("_", "-"), str(value))
        ]
        return [sys.executable, "-m", f"{self.app}_app", *flags, *self._extra, "--check"]

    # -------------------------------------------------------------------- network

    def name(self) -> Finding:
        host = self.settings.broker_host
        started_s = time.monotonic()
        try:
            found = socket.getaddrinfo(host, self.settings.broker_port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            return failed(
                f"the name {host!r} cannot be resolved: {why}",
                "correct --broker-host or this machine's DNS; an address such as 192.168.1.10 "
                "needs none",
                LinkError,
            )
        took_s = time.monotonic() - started_s
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        return ok(f"{host} is {', '.join(addresses)} ({1e3 * took_s:.1f} ms)")

    def tcp(self) -> Finding:
        where = self.settings.broker
        started_s = time.monotonic()
        try:
            address = (self.settings.broker_host, self.settings.broker_port)
            socket.create_connection(address, TCP_S).close()
        except ConnectionRefusedError:
            says = f"nothing listens on {where}: connection refused"
            remedy = (
                "start the broker there (systemctl status mosquitto), let it listen on more than "
                "loopback, or correct --broker-port"
            )
            return failed(says, remedy, LinkError)
        except TimeoutError:
            says = f"{where} does not answer within {TCP_S:.0f} s"
            return failed(says, "is it on, and does its firewall let the port through?", LinkError)
        except OSError as error:
            says = f"{where} cannot be reached: {error.strerror or error}"
            return failed(says, "see to this machine's network: cable, address, route", LinkError)
        self._connect_s = time.monotonic() - started_s
        return ok(f"{where} accepts connections ({1e3 * self._connect_s:.1f} ms)")

    def mqtt(self) -> Finding:
        reason = ""
        for number in VERSIONS[self.settings.mqtt]:
            self._heard.clear()
            self._link = link = visitor(self.settings, self._heard.append, number)
            event = self._wait(lambda event: isinstance(event, LinkUp | LinkDown), MQTT_S)
            if isinstance(event, LinkUp):
                user = self.settings.broker_user
                return ok(f"MQTT {number} as {f'user {user}' if user else 'anonymous'}")
            self._link = None
            link.close()
            told = event.reason if isinstance(event, LinkDown) else "did not answer"
            reason = told.removeprefix(self.settings.broker).strip()
            if _unauthorized(reason):
                break  # it speaks this version, and says no
        return failed(f"the broker {reason}", self._way_in(reason), LinkError)

    def _way_in(self, reason: str) -> str:
        if _unauthorized(reason) and not self.settings.broker_user:
            return "it wants a user: set --broker-user and --broker-password-file"
        if _unauthorized(reason):
            return (
                f"correct --broker-user {self.settings.broker_user} or its password file; "
                "mosquitto_passwd sets a password at the broker"
            )
        if "refused" in reason:
            return "see the broker's log; an old one may want --mqtt 3.1.1"
        return "what listens there hangs or is no MQTT broker: correct --broker-port"

    def round_trip(self) -> Finding:
        settings, nonce = self.settings, secrets.token_hex(8)
        topic = topics.probe(settings.site, settings.node, nonce)
        link = self._connected()
        link.subscribe([topic, *topics.presence_filters(settings.site)])
        rounds: list[float] = []
        for number in range(ROUNDS):
            payload = f"{nonce} {number}".encode()
            started_s = time.monotonic()
            link.publish(topic, payload, 1, False)
            echo = functools.partial(operator.eq, Arrived(topic, payload))
            if self._wait(echo, ECHO_S) is None:
                return failed(
                    f"what was published on {topic} did not come back within {ECHO_S:.0f} s",
                    "the broker's access list may forbid it: let this node read and write "
                    f"{topics.ROOT}/{settings.site}/#",
                    LinkError,
                )
            rounds.append(time.monotonic() - started_s)
        p50_s = statistics.median(rounds)
        says = (
            f"p50 {1e3 * p50_s:.2f} ms of {ROUNDS} at QoS 1, beside a TCP connect of "
            f"{1e3 * self._connect_s:.2f} ms; {self._who()}"
        )
        if p50_s <= settings.window_s / 2:
            return ok(says)
        remedy = (
            f"members are waited for {1e3 * settings.window_s:.0f} ms: mend the network, or raise "
            "--window-s and --deadline-s on every node"
        )
        return warning(says, remedy)

    def _who(self) -> str:
        online = self._online()
        return f"online: {', '.join(online)}" if online else "no node is online at this site"

    def _online(self) -> dict[str, Status]:
        """The other nodes' retained words, and this node's own should it run."""
        return {n: s for n, s in sorted(self.statuses.items()) if s.state == "online"}

    def _connected(self) -> MqttTransport:
        if self._link is None:
            raise LinkError("no connection to the broker")
        return self._link

    def _wait(self, wanted: Callable[[LinkEvent], bool], within_s: float) -> LinkEvent | None:
        """The first such event; the statuses that come on the way are noted."""
        link, until_s = self._connected(), time.monotonic() + within_s
        while True:
            while self._heard:
                event = self._heard.popleft()
                self._note(event)
                if wanted(event):
                    return event
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            link.wait(left_s)

    def _note(self, event: LinkEvent) -> None:
        if not isinstance(event, Arrived):
            return
        try:
            topic = topics.parse(event.topic)
            message = decode(topic.kind, event.payload)
        except RemoteProtocolError:
            return
        if isinstance(message, Status):
            self.statuses[topic.node] = message

    # ---------------------------------------------------------------------- clock

    def clock(self) -> Finding:
        edges = [node for node, status in self._online().items() if status.role == "edge"]
        ntp = ntp_synchronized()
        kept = {True: "; NTP keeps it", False: "; NTP does not keep it", None: ""}[ntp]
        if not edges:
            says = f"no edge is online to compare this clock with{kept}"
            return skipped(says, SET_CLOCK if ntp is False else "")
        measured = self._skew()
        if measured is None:
            says = f"{', '.join(edges)} does not tell the time{kept}"
            return warning(says, "is the site's lead edge up, of this version, and not stalled?")
        skew_s, error_s = measured
        beyond_s = abs(skew_s) - error_s
        says = f"{_compared(skew_s, error_s)} the lead edge's{kept}"
        remedy = f"{SET_CLOCK}, here or at the lead edge, whose clock the samples follow"
        if beyond_s > MOST_SKEW_S:
            return failed(says, remedy, DdnnError)
        if beyond_s > self.settings.window_s / 2 or ntp is False:
            return warning(says, remedy)
        return ok(says)

    def _skew(self) -> tuple[float, float] | None:
        """How far this clock is ahead of the lead edge's, and how wrong that is at most: of a few
        exchanges the one with the shortest round trip counts. None: no answer."""
        site, node, link = self.settings.site, self.settings.node, self._connected()
        reply = str(Topic(site, Kind.TIME_REPLY, node))
        link.subscribe([reply])
        best: tuple[float, float] | None = None
        for _ in range(CLOCK_ASKS):
            asked_s, wall_s = time.monotonic(), time.time()
            # Below zero, so that the node itself, should it run, takes no reply for its own.
            question = encode(TimeRequest(-asked_s))
            link.publish(str(Topic(site, Kind.TIME_REQUEST, node)), question, 0, False)

            def is_answer(event: LinkEvent, asked_s: float = asked_s) -> bool:
                told = _told(event, reply)
                return told is not None and told.echo_s == -asked_s

            told = _told(self._wait(is_answer, CLOCK_S), reply)
            if told is None:
                break
            half_s = (time.monotonic() - asked_s) / 2
            if best is None or half_s < best[1]:
                best = wall_s + half_s - told.replied_at_s, half_s
        return best

    # -------------------------------------------------- bundle, disk, program, versions

    def bundle(self) -> Finding:
        if not self.settings.bundle:
            return skipped("no bundle is named", "name it with --bundle")
        try:
            from ddnn.adapters.litert import LiteRtSection
        except ImportError as error:
            raise ConfigError(f"LiteRT cannot be loaded: {error}; pip install ddnn anew") from None
        path = Path(self.settings.bundle)
        manifest, _ = read_manifest(path)
        names = [] if self.worker else sections_of(manifest, self.app, self.settings.node)
        bundle = load_bundle(path, LiteRtSection, names)
        run = ", ".join(bundle.sections) or "no section"
        says = f"{manifest.name} {bundle.id}; checksums and golden outputs agree ({run})"
        announced = {node: s.bundle for node, s in self._online().items() if s.bundle}
        others = {node: other for node, other in announced.items() if other != bundle.id}
        if not others:
            return ok(f"{says}; the same as of {', '.join(announced)}" if announced else says)
        listed = ", ".join(f"{node} runs {shown(other)}" for node, other in others.items())
        remedy = "copy one bundle to every node and restart it"
        if manifest.hierarchy.lead in others:
            return failed(f"{bundle.id} here, but {listed}: the two are never fused", remedy)
        return warning(f"{says}; but {listed}", remedy)

    def disk(self) -> Finding:
        directory = Path(self.settings.state)
        disk.require_writable(directory)
        free_bytes, free_files = disk.room(directory)
        says = f"{_user()} can write {directory}; {free_bytes / 2**30:.1f} GiB free"
        files = WARN_FILES if free_files is None else free_files
        if free_files is not None:
            says += f", {free_files} files more"
        remedy = "make room: answers wait there while the cloud is away"
        if free_bytes < LOW_BYTES or files < LOW_FILES:
            return failed(says, remedy)
        if free_bytes < WARN_BYTES or files < WARN_FILES:
            return warning(says, remedy)
        return ok(says)

    def program(self) -> Finding:
        if self._program is None:
            return skipped("no app is named", "name it with --app")
        code, words = self._program.result()
        if code == 0:
            return ok(words)
        says, remedy = parted(words)
        remedy = remedy or REMEDY[self._program_of].format(app=self.app)
        if PROGRAM[self._program_of] == "camera" and self.settings.node in self._online():
            return warning(
                f"{says}; but {self.settings.node} is online and may hold its camera",
                "stop the node to examine its camera",
            )
        return Finding("failed", says, remedy, code)

    def versions(self) -> Finding:
        python = ".".join(str(part) for part in sys.version_info[:3])
        if sys.maxsize <= 2**32:
            says = f"Python {python} is 32-bit, and LiteRT needs 64"
            return failed(says, "install a 64-bit system, such as Raspberry Pi OS 64-bit")
        try:
            litert = version("ai-edge-litert")
        except PackageNotFoundError:
            return failed("LiteRT is not installed", "pip install ddnn, in the node's environment")
        says = f"ddnn {ddnn_version()}, Python {python}, 64-bit, LiteRT {litert}"
        others = [
            f"{node} has {shown(status.version)}"
            for node, status in self._online().items()
            if status.version not in ("", ddnn_version())
        ]
        if others:
            return warning(f"{says}; but {', '.join(others)}", "install one version everywhere")
        return ok(says)


class Program:
    """The node's app with --check, beside the other checks: a camera takes its time to open."""

    def __init__(self, app: App, command: Sequence[str]) -> None:
        self._app = app
        self._until_s = time.monotonic() + PROGRAM_S
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, stdin=subprocess.DEVNULL
        )

    def refused_keys(self) -> str:
        """What the app says of its keys; empty where it takes them: then it says so at once, on
        standard output."""
        out = cast(IO[bytes], self._process.stdout)
        return "" if out.readline() else self.result()[1]

    def result(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        try:
            out, _ = self._process.communicate(timeout=max(0.1, self._until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            hangs = f"{self._app}_app --check did not end within {PROGRAM_S:.0f} s"
            return DdnnError.exit_code, f"{hangs}; something hangs there: try it by hand"
        if self._process.returncode == 0:
            *found, last = out.decode(errors="replace").strip().split("\n")
            return 0, ", ".join(found) or last
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().split("\n")
        words = next((line for line in lines if line.lower().startswith("error: ")), lines[-1])
        if "ModuleNotFoundError" in words:
            words += f"; pip install 'ddnn[{'cloud' if self._app == 'cloud' else 'camera'}]'"
        return max(1, self._process.returncode), words.partition("rror: ")[2] or words

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()


# ------------------------------------------------------------------------- facts


def ntp_synchronized() -> bool | None:
    """Whether the kernel's clock is kept by NTP; None: the system does not tell."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # all zero: only asks
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR: not synchronized


def sections_of(manifest: Manifest, app: App | None, node: str) -> list[str] | None:
    """The sections that the node runs; None: all. ConfigError: the bundle knows no such node."""
    hierarchy = manifest.hierarchy
    if app == "device":
        if node not in hierarchy.devices:
            known = ", ".join(hierarchy.devices)
            raise ConfigError(f"--node {node!r} is no device of the bundle; it knows {known}")
        return list(own_section(manifest, node))
    if app == "edge":
        hierarchy.group(node)
        return [node] if hierarchy.edge_section else []
    return [CLOUD] if app == "cloud" else None


class _Lending(msgspec.Struct):
    lend: str = "off"


def lends(flags: Sequence[str], file: str | None) -> bool:
    """Whether the node is to lend, by its flags, environment or file."""
    words = [word for flag in flags for word in flag.split("=", 1)]
    given = {"lend": words[words.index("--lend") + 1]} if "--lend" in words[:-1] else {}
    try:
        return read_config(_Lending, given, os.environ, file, others=True).lend == "on"
    except ConfigError:  # said elsewhere
        return False


def _unauthorized(reason: str) -> bool:
    return any(word in reason.lower() for word in ("authorized", "password", "banned"))


def _told(event: LinkEvent | None, topic: str) -> TimeReply | None:
    if not isinstance(event, Arrived) or event.topic != topic:
        return None
    try:
        return cast(TimeReply, decode(Kind.TIME_REPLY, event.payload))
    except RemoteProtocolError:
        return None


def _compared(skew_s: float, error_s: float) -> str:
    if abs(skew_s) <= error_s:
        return f"within {1e3 * error_s:.1f} ms of"
    by = f"{1e3 * abs(skew_s):.1f} ms" if abs(skew_s) < 1 else f"{abs(skew_s):.1f} s"
    return f"{by} {'ahead of' if skew_s > 0 else 'behind'}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as containers have
        return "this user"
