"""The deployment of docker-compose.yml, run for real without containers.

Both brokers with their own configuration, users and bridge; PostgreSQL that wants the password;
two cloud nodes that share, the dashboard, the edge and six cameras, each with the command,
environment and health check that stand in docker-compose.yml.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from ddnn.cli.secrets import CLOUD_USERS, EDGE_USERS, generate_secrets, write_secrets
from ddnn.data import load_samples
from ddnn.protocol import topics
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Answer
from ddnn.protocol.topics import EVERYWHERE, Kind, topic_filter
from tests.deployment.listener import Listener
from tests.deployment.native import CONFINES, Native, make_database, open_directory
from tests.deployment.observed import expressions, list_metric_names
from tests.e2e.conftest import export_frames
from tests.parts import need, need_mosquitto
from tests.postgres import running_postgres

pytestmark = pytest.mark.timed

SITE = "home"
CAMERAS = [f"cam{i}" for i in range(1, 7)]
CLOUDS = ["cloud#1", "cloud#2"]
PROGRAMS = [*CLOUDS, "dashboard", "edge", *CAMERAS]
ANSWERED_WITHIN_S = 1.0  # the deadline that the nodes are given by default
LAN_ONLY = {Kind.SCORES, Kind.FEATURES, Kind.ESCALATE, Kind.TIME_REQUEST, Kind.TIME_REPLY}


def fetch(url: str, token: str = "") -> bytes:
    request = urllib.request.Request(url)  # noqa: S310  of loopback
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
        return response.read()


class Deployment:
    """The running services, a listener at each broker, and the dashboard's API."""

    def __init__(self, native: Native) -> None:
        self.native = native
        self.lan = Listener(native, "mosquitto-edge")
        self.cloud = Listener(native, "mosquitto-cloud")

    def get(self, path: str) -> Any:
        return json.loads(self.page(path))

    def page(self, path: str) -> bytes:
        token = (self.native.secrets / "api_token").read_text().strip()
        return fetch(f"http://127.0.0.1:{self.native.ports['dashboard']}{path}", token)

    def find_stored(self, first: int, last: int) -> set[int]:
        """The samples from `first` to `last` that the database has an answer to."""
        found: set[int] = set()
        while True:
            page = self.get(f"/api/v1/answers?site={SITE}&first={first}&last={last}")
            if not page:
                return found
            found |= {entry["answer"]["sample"] for entry in page}
            first = page[-1]["answer"]["sample"] + 1


@pytest.fixture(scope="module")
def site(scenes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    need_mosquitto()
    need(shutil.which("mosquitto_sub"), "mosquitto_sub is not installed")
    frames = export_frames(load_samples("scenes"), tmp_path_factory.mktemp("scenes") / "frames")
    with running_postgres() as server, open_directory() as directory:
        files = generate_secrets()
        write_secrets(directory / "secrets", files)
        port = make_database(server.url, files["database_password"].strip())
        native = Native(directory, directory / "secrets", scenes_bundle, frames, port)
        try:
            for broker in ("mosquitto-cloud", "mosquitto-edge"):
                native.start(broker)
                native.wait_until_healthy(broker)
            deployment = Deployment(native)
            for program in PROGRAMS:
                native.start(program)

            def is_every_exit_used() -> bool:
                return {a.exit for a in deployment.lan.answers()} >= {"local", "edge", "cloud"}

            native.wait(is_every_exit_used, 40, "answers of every exit")
            yield deployment
            deployment.lan.close()
            deployment.cloud.close()
        finally:
            native.close()


def test_every_service_is_healthy_by_its_own_check(site):
    names = ("mosquitto-edge", "mosquitto-cloud", "database", *PROGRAMS)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(site.native.wait_until_healthy, names))


def test_services_are_confined_as_their_options_want(site):
    """Where the tests may confine them: read-only root, no capabilities, the service's user."""
    for name, process in site.native.running.items():
        about = Path(f"/proc/{process.pid}")
        root = next(line for line in (about / "mounts").read_text().splitlines() if " / " in line)
        state = dict(line.split(":\t", 1) for line in (about / "status").open() if ":\t" in line)
        confined = (
            "ro" in root.split()[3].split(","),
            int(state["CapEff"], 16) | int(state["CapBnd"], 16) == 0,
            int(state["NoNewPrivs"]) == 1,
        )
        assert confined == (CONFINES,) * 3 or not CONFINES, name
        if CONFINES and name.startswith("mosquitto"):
            assert state["Uid"].split()[0] == "1883"


def test_samples_are_answered_at_every_exit_and_stored(site):
    since_s = time.time()

    def list_answers() -> list[Answer]:
        return [a for a in site.lan.answers(since_s) if a.captured_at_s >= since_s]

    site.native.wait(lambda: len(list_answers()) >= 30, 20, "answers")
    answers = list_answers()
    full = [a for a in answers if a.quality == "full"]
    assert len(full) >= 0.9 * len(answers)
    assert {a.exit for a in full} == {"local", "edge", "cloud"}  # the verdict came back in time
    samples = sorted(a.sample for a in answers)

    def are_all_stored() -> bool:
        return site.find_stored(samples[0], samples[-1]) >= {*samples}

    site.native.wait(are_all_stored, 10, "every answer in PostgreSQL")


def test_both_clouds_work(site):
    """Escalated samples go to one cloud each: `--share` divides them."""
    since_s = time.time()
    judged = [decode(t.kind, p).sample for t, p in site.cloud.all() if t.kind is Kind.VERDICT]
    assert judged
    assert len(judged) == len({*judged})
    ids = {t.node for t, _ in site.cloud.all() if (t.site, t.kind) == (EVERYWHERE, Kind.STATUS)}
    clouds = {node for node in ids if node.startswith("cloud-")}
    assert len(clouds) == 2

    def is_count_reached() -> bool:
        counted = [
            (t.node, decode(t.kind, p).counts)
            for t, p in site.cloud.all(since_s)
            if t.kind is Kind.STATS and t.node in clouds
        ]
        return {node for node, counts in counted if counts.get("answers", 0) > 0} == clouds

    site.native.wait(is_count_reached, 15, "answers stored by both clouds")


def test_what_stays_on_the_lan_never_reaches_the_cloud(site):
    local = {Kind.SCORES, Kind.FEATURES, Kind.ESCALATE, Kind.VERDICT}
    crossing = {Kind.UPLINK, Kind.ANSWER, Kind.STATUS, Kind.STATS, Kind.VERDICT}

    def is_every_kind_seen() -> bool:
        at_site = {t.kind for t, _ in site.lan.all()}
        return local <= at_site and crossing <= {t.kind for t, _ in site.cloud.all()}

    site.native.wait(is_every_kind_seen, 20, "a message of every kind")
    assert not {t.kind for t, _ in site.cloud.all()} & LAN_ONLY


def test_presence_crosses_the_bridge_and_is_not_echoed(site):
    status = topic_filter(Kind.STATUS)
    crossed = {topics.parse(t)[::2] for t in site.cloud.read_retained(status)}
    here = {topics.parse(t)[::2] for t in site.lan.read_retained(status)}
    nodes = {(SITE, name) for name in ("edge", *CAMERAS)}
    assert nodes <= crossed
    assert nodes <= here
    assert {s for s, _ in here} == {SITE, EVERYWHERE}
    assert sum(s == EVERYWHERE for s, _ in here) == 3  # two clouds and the dashboard
    shown = {(n["site"], n["id"]): n["state"] for n in site.get("/api/v1/nodes")}
    assert all(shown[node] == "online" for node in nodes)
    kinds = [topic.kind for topic, _ in site.cloud.all() if topic.node == "edge"]
    # It is repeated with the statistics; an echo would go round for ever.
    assert kinds.count(Kind.STATUS) < 5 + kinds.count(Kind.STATS)


def test_a_retained_command_waits_at_the_site(site):
    topic = f"ddnn/v1/{SITE}/node/nobody/cmd/thresholds"
    sent = site.cloud.client.publish(topic, b'{"test":1}', qos=1, retain=True)
    sent.wait_for_publish(5)
    site.native.wait(lambda: topic in site.lan.read_retained(topic), 5, "the command at the site")
    other = site.cloud.client.publish(topic.replace(SITE, "elsewhere"), b"{}", qos=1)
    other.wait_for_publish(5)
    time.sleep(0.5)
    assert not [t for t, _ in site.lan.all() if t.site not in (SITE, EVERYWHERE)]
    site.cloud.client.publish(topic, b"", qos=1, retain=True)


@pytest.mark.parametrize("broker", ["mosquitto-edge", "mosquitto-cloud"])
def test_strangers_are_refused(site, broker):
    users = EDGE_USERS if broker == "mosquitto-edge" else CLOUD_USERS

    def is_refused(user: str | None, password: str | None) -> bool:
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

    assert is_refused(None, None)
    for user in (*EDGE_USERS, *CLOUD_USERS):
        password = (site.native.secrets / f"mqtt_{user}").read_text().strip()
        assert is_refused(user, password) == (user not in users)
        assert is_refused(user, password + "x")


def test_the_dashboard_asks_who_is_there(site):
    port = site.native.ports["dashboard"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        fetch(f"http://127.0.0.1:{port}/api/v1/nodes")


def test_no_secret_shows_in_logs_command_lines_or_environments(site):
    secrets = {file.read_text().strip() for file in site.native.secrets.iterdir()}
    for name, process in site.native.running.items():
        shown = site.native.log(name).encode()
        for what in ("cmdline", "environ"):
            shown += Path(f"/proc/{process.pid}/{what}").read_bytes()
        assert not [secret for secret in secrets if secret.encode() in shown], name


def test_prometheus_finds_every_metric_that_panels_and_alerts_name(site):
    """With its own configuration and the token; every expression is asked, and has an answer."""
    for part in ("prometheus", "wget"):
        need(shutil.which(part), f"{part} is not installed")
    site.native.start("prometheus")
    site.native.wait_until_healthy("prometheus")
    base = f"http://127.0.0.1:{site.native.ports['prometheus']}/api/v1"

    def ask(expression: str) -> list[Any]:
        query = urllib.parse.urlencode({"query": expression})
        return json.loads(fetch(f"{base}/query?{query}"))["data"]["result"]

    def has_rate() -> bool:
        (value,) = ask("sum(rate(ddnn_samples_total[1m]))") or [{"value": (0, "nan")}]
        return float(value["value"][1]) > 1

    site.native.wait(has_rate, 20, "rates in Prometheus")
    described = set(re.findall(r"^# TYPE (\w+)", site.page("/metrics").decode(), re.M))
    assert list_metric_names() <= described
    for expression in expressions():
        found = ask(expression)
        quiet = re.search(r"(== 0|> [\d.]+|== 1)$", expression)  # an alert, or drops: none now
        assert found or quiet, expression
    assert [series["value"][1] for series in ask("up")] == ["1"]
    alerts = json.loads(fetch(f"{base}/alerts"))["data"]["alerts"]
    at_start = {"DdnnAnswersDegraded", "DdnnAnswersSlow"}  # pending, while it all comes up
    assert {alert["labels"]["alertname"] for alert in alerts} <= at_start
    assert site.native.stop("prometheus") == 0


def test_the_database_wants_the_password(site):
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://ddnn@127.0.0.1:{site.native.ports['database']}/ddnn")


def test_a_cut_link_leaves_the_site_answering_and_loses_no_answer(site):
    native = site.native
    native.kill("mosquitto-cloud")
    cut_s = time.time()

    def list_new() -> list[Answer]:
        return [a for a in site.lan.answers(cut_s) if a.captured_at_s >= cut_s]

    native.wait(lambda: len(list_new()) >= 50, 20, "answers without a link")
    native.check()
    first = min(a.sample for a in list_new())
    last = first + 39
    samples = {*range(first, last + 1)}
    native.wait(lambda: {a.sample for a in list_new()} >= samples, 20, "an answer to every sample")
    answers = [a for a in list_new() if a.sample in samples]
    assert all(a.answered_at_s - a.captured_at_s <= ANSWERED_WITHIN_S for a in answers)
    assert {a.exit for a in answers[-20:]} <= {"local", "edge"}
    native.start("mosquitto-cloud")

    def is_stored() -> bool:
        try:
            return site.find_stored(first, last) == samples
        except OSError:
            return False

    native.wait(is_stored, 25, "the answers of the time without a link, in PostgreSQL")
    again_s = time.time()
    native.wait(
        lambda: any(a.exit == "cloud" for a in site.lan.answers(again_s)), 15, "verdicts again"
    )


def test_a_health_check_fails_where_the_machine_stands_still(site):
    names = ("edge", "cloud#2", "cam3")
    for name in names:
        site.native.running[name].send_signal(signal.SIGSTOP)
    try:
        time.sleep(0.5)
        with ThreadPoolExecutor(len(names)) as pool:
            codes = [done.returncode for done in pool.map(site.native.check_health, names)]
    finally:
        for name in names:
            site.native.running[name].send_signal(signal.SIGCONT)
    assert codes == [8, 8, 8]


def test_every_program_ends_well_on_sigterm(site):
    for name in (*CAMERAS, "edge", "dashboard", *CLOUDS, "mosquitto-edge", "mosquitto-cloud"):
        assert site.native.stop(name) == 0, name
