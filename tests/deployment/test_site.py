"""The deployment of docker-compose.yml, run for real without containers.

Both brokers with their own configuration, users and bridge; PostgreSQL that wants the password;
two cloud nodes that share, the dashboard, the edge and six cameras, each with the command,
environment and health check that stand in docker-compose.yml.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from ddnn.cli.secrets import CLOUD_USERS, EDGE_USERS, generate, write
from ddnn.data import load_samples
from ddnn.protocol import topics
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import EVERYWHERE, Kind, topic_filter
from tests.deployment.native import Native, open_directory
from tests.e2e.conftest import export_frames
from tests.parts import need_mosquitto
from tests.postgres import running_postgres

SITE = "home"
CAMERAS = [f"cam{i}" for i in range(1, 7)]
CLOUDS = ["cloud#1", "cloud#2"]
PROGRAMS = [*CLOUDS, "dashboard", "edge", *CAMERAS]
ANSWERED_WITHIN_S = 1.0  # the deadline that the nodes are given by default
LAN_ONLY = {Kind.SCORES, Kind.FEATURES, Kind.ESCALATE, Kind.CLOCK_ASK, Kind.CLOCK_TELL}


class Listener:
    """Hears everything at one broker, as a client of its own."""

    def __init__(self, native: Native, broker: str, user: str = "health") -> None:
        self.heard: list[tuple[float, str, bytes, bool]] = []  # when, topic, payload, retained
        self._lock = threading.Lock()
        self._port = native.ports[broker]
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.username_pw_set(user, (native.secrets / f"mqtt_{user}").read_text().strip())
        self.client.on_connect = lambda client, *_: client.subscribe("#")
        self.client.on_message = self._hear
        self.client.reconnect_delay_set(0.2, 1)
        self.client.connect("127.0.0.1", self._port, 5)
        self.client.loop_start()

    def _hear(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._lock:
            told = (time.time(), message.topic, message.payload, message.retain)
            self.heard.append(told)

    def all(self, since_s: float = 0.0) -> list[tuple[topics.Topic, bytes]]:
        """Messages of ours; each must be one of the table's kinds."""
        with self._lock:
            heard = [(topic, payload) for at_s, topic, payload, _ in self.heard if at_s >= since_s]
        ours: list[tuple[topics.Topic, bytes]] = []
        for topic, payload in heard:
            if topic.startswith("ddnn/") and "/probe/" not in topic:
                ours.append((topics.parse(topic), payload))
        return ours

    def answers(self, since_s: float = 0.0) -> list[Answer]:
        return [decode(t.kind, p) for t, p in self.all(since_s) if t.kind is Kind.RESULT]

    def retained(self, filter_: str) -> dict[str, bytes]:
        """What a client that subscribes now is told at once."""
        told: dict[str, bytes] = {}
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.username, client.password = self.client.username, self.client.password
        client.on_connect = lambda c, *_: c.subscribe(filter_)
        client.on_message = lambda _c, _u, m: told.update({m.topic: m.payload} if m.retain else {})
        client.connect("127.0.0.1", self._port, 5)
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s:
            client.loop(0.05)
        client.disconnect()
        return told

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Deployment:
    """The running services, a listener at each broker, and the dashboard's API."""

    def __init__(self, native: Native) -> None:
        self.native = native
        self.lan = Listener(native, "mosquitto-edge")
        self.cloud = Listener(native, "mosquitto-cloud")

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.native.ports['dashboard']}{path}")
        token = (self.native.secrets / "api_token").read_text().strip()
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def stored(self, first: int, last: int) -> set[int]:
        """The samples from `first` to `last` that the database has an answer to."""
        found: set[int] = set()
        while True:
            page = self.get(f"/api/v1/answers?site={SITE}&first={first}&last={last}")
            if not page:
                return found
            found |= {entry["answer"]["sample"] for entry in page}
            first = page[-1]["answer"]["sample"] + 1


def make_database(url: str, password: str) -> int:
    """User, database and password rule as the container's image makes them; the server's port."""
    with psycopg.connect(url, autocommit=True) as link:
        link.execute(f"CREATE ROLE ddnn LOGIN PASSWORD '{password}'")
        link.execute("CREATE DATABASE ddnn OWNER ddnn")
        (rules,) = link.execute("SHOW hba_file").fetchone() or ("",)
        rule = "host all all 127.0.0.1/32 scram-sha-256"
        link.execute(f"COPY (VALUES ('{rule}')) TO '{rules}'")
        link.execute("SELECT pg_reload_conf()")
        return link.info.port


@pytest.fixture(scope="module")
def site(
    scenes_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    need_mosquitto()
    frames = export_frames(load_samples("scenes"), tmp_path_factory.mktemp("scenes") / "frames")
    with running_postgres() as server, open_directory() as directory:
        files = generate()
        write(directory / "secrets", files)
        port = make_database(server.url, files["database_password"].strip())
        native = Native(directory, directory / "secrets", scenes_bundle, frames, port)
        try:
            for broker in ("mosquitto-cloud", "mosquitto-edge"):
                native.start(broker)
                native.wait_until_healthy(broker)
            deployment = Deployment(native)
            for program in PROGRAMS:
                native.start(program)

            def answering() -> bool:
                return {a.exit for a in deployment.lan.answers()} >= {"local", "edge", "cloud"}

            native.wait(answering, 40, "answers of every exit")
            yield deployment
            deployment.lan.close()
            deployment.cloud.close()
        finally:
            native.close()


def test_every_service_is_healthy_by_its_own_check(site):
    for name in ("mosquitto-edge", "mosquitto-cloud", "database", *PROGRAMS):
        site.native.wait_until_healthy(name)


def test_samples_are_answered_at_every_exit_and_stored(site):
    since_s = time.time()
    time.sleep(3)
    answers = [a for a in site.lan.answers(since_s) if a.captured_at_s >= since_s]
    assert len(answers) >= 20
    full = [a for a in answers if a.quality == "full"]
    assert len(full) >= 0.9 * len(answers)
    assert {a.exit for a in full} == {"local", "edge", "cloud"}  # the verdict came back in time
    samples = sorted(a.sample for a in answers)

    def all_stored() -> bool:
        return site.stored(samples[0], samples[-1]) >= {*samples}

    site.native.wait(all_stored, 10, "every answer in PostgreSQL")


def test_both_clouds_work(site):
    """Escalated samples go to one cloud each: `--share` divides them."""
    since_s = time.time()
    uplinks = [t for t, _ in site.cloud.all() if t.kind is Kind.UPLINK]
    verdicts = [t for t, _ in site.cloud.all() if t.kind is Kind.VERDICT]
    assert len(verdicts) <= len(uplinks)
    ids = {t.node for t, _ in site.cloud.all() if (t.site, t.kind) == (EVERYWHERE, Kind.STATUS)}
    clouds = {node for node in ids if node.startswith("cloud-")}
    assert len(clouds) == 2

    def counted() -> bool:
        told = [
            (t.node, decode(t.kind, p).counts)
            for t, p in site.cloud.all(since_s)
            if t.kind is Kind.STATS and t.node in clouds
        ]
        return {node for node, counts in told if counts.get("answers", 0) > 0} == clouds

    site.native.wait(counted, 15, "answers stored by both clouds")


def test_what_stays_on_the_lan_never_reaches_the_cloud(site):
    at_site = {t.kind for t, _ in site.lan.all()}
    at_cloud = {t.kind for t, _ in site.cloud.all()}
    assert {Kind.SCORES, Kind.FEATURES, Kind.ESCALATE, Kind.VERDICT} <= at_site
    assert {Kind.UPLINK, Kind.RESULT, Kind.STATUS, Kind.STATS, Kind.VERDICT} <= at_cloud
    assert not at_cloud & LAN_ONLY


def test_presence_is_told_across_the_bridge_and_not_echoed(site):
    status = topic_filter(Kind.STATUS)
    told = {topics.parse(t)[::2] for t in site.cloud.retained(status)}
    here = {topics.parse(t)[::2] for t in site.lan.retained(status)}
    nodes = {(SITE, name) for name in ("edge", *CAMERAS)}
    assert nodes <= told
    assert nodes <= here
    assert {s for s, _ in here} == {SITE, EVERYWHERE}
    assert sum(s == EVERYWHERE for s, _ in here) == 3  # two clouds and the dashboard
    shown = {(n["site"], n["id"]): n["state"] for n in site.get("/api/v1/nodes")}
    assert all(shown[node] == "online" for node in nodes)
    births = [t for t, _ in site.cloud.all() if (t.node, t.kind) == ("edge", Kind.STATUS)]
    assert len(births) < 5  # an echo would go round for ever


def test_a_retained_command_waits_at_the_site(site):
    topic = f"ddnn/v1/{SITE}/node/nobody/cmd/thresholds"
    sent = site.cloud.client.publish(topic, b'{"test":1}', qos=1, retain=True)
    sent.wait_for_publish(5)
    site.native.wait(lambda: topic in site.lan.retained(topic), 5, "the command at the site")
    other = site.cloud.client.publish(topic.replace(SITE, "elsewhere"), b"{}", qos=1)
    other.wait_for_publish(5)
    time.sleep(0.5)
    assert not [t for t, _ in site.lan.all() if t.site not in (SITE, EVERYWHERE)]
    site.cloud.client.publish(topic, b"", qos=1, retain=True)


@pytest.mark.parametrize("broker", ["mosquitto-edge", "mosquitto-cloud"])
def test_strangers_are_refused(site, broker):
    users = EDGE_USERS if broker == "mosquitto-edge" else CLOUD_USERS

    def refused(user: str | None, password: str | None) -> bool:
        codes: list[Any] = []
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.on_connect = lambda _c, _u, _f, code, _p: codes.append(code)
        client.username_pw_set(user, password) if user else None
        client.connect("127.0.0.1", site.native.ports[broker], 5)
        until_s = time.monotonic() + 5
        while not codes and time.monotonic() < until_s:
            client.loop(0.1)
        client.disconnect()
        return codes[0].is_failure

    assert refused(None, None)
    for user in (*EDGE_USERS, *CLOUD_USERS):
        password = (site.native.secrets / f"mqtt_{user}").read_text().strip()
        assert refused(user, password) == (user not in users)
        assert refused(user, password + "x")


def test_the_dashboard_asks_who_is_there(site):
    port = site.native.ports["dashboard"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/nodes", timeout=5)
    assert "postgresql" not in site.native.log("dashboard").lower() or "passfile" in str(
        site.native.environment("dashboard")
    )


def test_the_database_wants_the_password(site):
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://ddnn@127.0.0.1:{site.native.ports['database']}/ddnn")


def test_a_cut_link_leaves_the_site_answering_and_loses_no_answer(site):
    native = site.native
    native.kill("mosquitto-cloud")
    cut_s = time.time()
    time.sleep(5)
    native.check()
    answers = [a for a in site.lan.answers(cut_s) if a.captured_at_s >= cut_s]
    samples = {a.sample for a in answers}
    first, last = min(samples), max(samples)
    assert last - first >= 30  # ten a second, less those still on their way
    assert samples == {*range(first, last + 1)}
    assert all(a.answered_at_s - a.captured_at_s <= ANSWERED_WITHIN_S for a in answers)
    assert {a.exit for a in answers[-20:]} <= {"local", "edge"}
    native.start("mosquitto-cloud")

    def stored() -> bool:
        try:
            return site.stored(first, last) == samples
        except OSError:
            return False

    native.wait(stored, 25, "the answers of the time without a link, in PostgreSQL")
    again_s = time.time()
    native.wait(
        lambda: any(a.exit == "cloud" for a in site.lan.answers(again_s)), 15, "verdicts again"
    )


def test_a_health_check_fails_where_the_machine_stands_still(site):
    for name, seen in (("edge", "edge"), ("cloud#2", "cloud")):
        process = site.native.running[name]
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(0.5)
            assert site.native.healthy(name).returncode == 8, seen
        finally:
            process.send_signal(signal.SIGCONT)
    dead = site.native.ports["dashboard"]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", dead)) == 0


def test_every_program_ends_well_on_sigterm(site):
    for name in (*CAMERAS, "edge", "dashboard", *CLOUDS, "mosquitto-edge", "mosquitto-cloud"):
        assert site.native.stop(name) == 0, name
