"""A site with TLS and a real Mosquitto: who is let in, who may do what, which commands count."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cloud_app.registry import Registry
from ddnn.adapters.command import read_config
from ddnn.adapters.joined import open_guard
from ddnn.adapters.mqtt_link import READ_AT_ONCE
from ddnn.cli.observer import ObserverSettings
from ddnn.protocol.codec import decode_arrived, encode
from ddnn.protocol.commands import FORGED, REFUSALS, REPLAYED, UNSIGNED
from ddnn.protocol.machine import Received
from ddnn.protocol.messages import Stats, Thresholds
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import read_manifest
from tests.integration.commands import run
from tests.integration.secure_site import IN_TIME_S, Member, SecureSite

COMMAND = Topic("home", Kind.THRESHOLDS, "edge")
EVERYTHING = "ddnn/v1/#"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureSite]:
    site = SecureSite(tmp_path_factory.mktemp("secure"))
    for node, *roles in (
        ("cam1", "device"),
        ("cam2", "device"),
        ("edge", "edge"),
        ("page", "cloud", "dashboard"),
    ):
        site.add(node, *roles)
    site.start()
    yield site
    site.close()


@pytest.fixture
def members(site: SecureSite) -> Iterator[dict[str, Member]]:
    """Connections of cam1, edge and page, which ask for everything."""
    found = {node: Member(site.directory / f"{node}.site") for node in ("cam1", "edge", "page")}
    for member in found.values():
        member.connect(EVERYTHING)
    yield found
    for member in found.values():
        member.close()


def test_a_certificate_that_is_expired_revoked_or_of_another_site_is_refused(
    site: SecureSite, tmp_path: Path
) -> None:
    stays = Member(site.directory / "cam1.site").connect()
    stranger = SecureSite(tmp_path, site.port)  # another CA; the same names and address
    files = {
        "expired": site.add("cam3", "device", days=-1),
        "unknown": stranger.add("cam1", "device"),
        "revoked": site.add("cam4", "device"),
    }
    Member(files["revoked"]).connect().close()
    site.revoke("cam4")
    refusals = {}
    for why, file in files.items():
        member = Member(file)
        refusals[why] = member.find_refusal()
        member.close()
    alert_lost = "is this node's certificate expired or revoked?"  # by a reset that came first
    for why in ("expired", "revoked"):
        alert = f"refused the certificate of this node: certificate {why}"
        assert alert in refusals[why] or alert_lost in refusals[why]
    assert "has a certificate that is not accepted" in refusals["unknown"]  # the broker's, by it
    stays.sync()  # a reload cuts nobody off
    stays.close()


def test_a_broker_under_another_name_is_refused(site: SecureSite) -> None:
    member = Member(site.directory / "cam1.site", broker_host="127.0.0.2")
    assert "has a certificate that is not accepted: IP address mismatch" in member.find_refusal()
    member.close()


def test_a_client_without_a_certificate_gets_nothing(site: SecureSite) -> None:
    file = site.directory / "cam1.site"
    member = Member(file, lambda: ssl.create_default_context(cafile=site.path / "ca.crt"))
    assert "certificate" in member.find_refusal()
    member.close()


def test_a_node_writes_its_own_topics_and_reads_what_its_role_needs(
    members: dict[str, Member],
) -> None:
    cam1, edge, page = members.values()
    for topic in (
        "scores/cam1",
        "scores/cam2",
        "node/cam2/status",
        "node/edge/status",
        "escalate",
        "answer/edge",
        "answer/cam1",
        "node/edge/cmd/thresholds",
        "verdict/edge",
    ):
        cam1.transport.publish(f"ddnn/v1/home/{topic}", b"by cam1", 1, False)
    cam1.sync()
    edge.transport.publish("ddnn/v1/home/answer/edge", b"by edge", 1, False)
    edge.transport.publish(str(Topic("home", Kind.ANSWERED, "edge")), b"by edge", 1, False)
    edge.transport.publish("ddnn/v1/home/uplink/edge", b"by edge", 1, False)
    edge.sync()
    page.sync()
    cam1.sync()
    assert edge.list_topics() == ["ddnn/v1/home/scores/cam1"]
    assert page.list_topics() == [
        "ddnn/v1/home/answer/cam1",
        "ddnn/v1/home/answer/edge",
        "ddnn/v1/home/uplink/edge",
    ]
    assert cam1.list_topics() == [str(Topic("home", Kind.ANSWERED, "edge"))]


def serve_one_record(site: SecureSite, count: int) -> tuple[int, threading.Thread]:
    """A broker that accepts one node and sends it so many messages in one TLS record, and no more.

    Returns its port and its thread, which ends with the connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.path / "broker/broker.crt", site.path / "broker/broker.key")
    listener = socket.create_server(("127.0.0.1", 0))
    accepted = bytes([0x20, 3, 0, 0, 0])  # CONNACK of MQTT 5
    message = bytes([0x30, 7, 0, 3]) + b"a/b\0x"  # PUBLISH of MQTT 5, QoS 0: topic, payload

    def serve() -> None:
        with listener, context.wrap_socket(listener.accept()[0], server_side=True) as link:
            link.recv(4096)
            link.sendall(accepted + count * message)
            while link.recv(4096):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener.getsockname()[1], thread


def test_what_is_decrypted_already_is_read_without_more_bytes(site: SecureSite) -> None:
    """A TLS record holds more messages than are read at once, and then nothing more comes."""
    count = 5 * READ_AT_ONCE
    port, thread = serve_one_record(site, count)
    member = Member(site.directory / "cam1.site", broker_port=port)
    member.wait_until(lambda: len(member.list_payloads("a/b")) == count)
    member.close()
    thread.join(IN_TIME_S)
    assert not thread.is_alive()


def test_a_revoked_node_that_is_still_connected_has_no_rights(site: SecureSite) -> None:
    listener = Member(site.directory / "edge.site").connect("ddnn/v1/home/scores/+")
    member = Member(site.add("cam5", "device")).connect()
    site.add("edge", renew=True)  # it reads what the new node writes
    member.transport.publish("ddnn/v1/home/scores/cam5", b"before", 1, False)
    member.sync()
    listener.sync()
    site.revoke("cam5")
    member.transport.publish("ddnn/v1/home/scores/cam5", b"after", 1, False)
    member.transport.wait(0.2)
    listener.sync()
    assert listener.list_payloads("ddnn/v1/home/scores/cam5") == [b"before"]
    member.close()
    listener.close()


def test_two_brokers_are_joined_by_certificates(tmp_path: Path) -> None:
    """Answers cross upwards, scores do not; the cloud's thresholds are obeyed at the site."""
    cloud, home = SecureSite(tmp_path / "cloud", site="all"), SecureSite(tmp_path / "home")
    members: list[Member] = []
    try:
        page_file = cloud.add("page", "dashboard")
        home.join(cloud.add("home", "bridge"))
        edge_file = home.add("edge", "edge")
        cloud.start()
        home.start()
        page = Member(page_file).connect(EVERYTHING)
        edge = Member(edge_file).connect(EVERYTHING)
        members += [page, edge]
        own, crossing = "ddnn/v1/home/scores/edge", "ddnn/v1/home/answer/edge"

        def is_answered() -> bool:
            edge.transport.publish(own, b"stays", 1, False)
            edge.transport.publish(crossing, b"crosses", 1, False)
            edge.transport.wait(0.05)
            return bool(page.list_payloads(crossing))

        page.wait_until(is_answered)
        assert page.list_payloads(own) == []
        keys = {"state": str(tmp_path / "state")}
        page_guard, edge_guard = (
            open_guard(read_config(ObserverSettings, {"site_file": str(file), **keys}, {}))
            for file in (page_file, edge_file)
        )
        assert page_guard is not None
        assert edge_guard is not None
        command = encode(Thresholds("b1", {"local": 0.5}, 1))
        page.transport.publish(str(COMMAND), page_guard.seal(COMMAND, command), 1, True)
        page.sync()
        edge.wait_until(lambda: edge.list_payloads(str(COMMAND)))
        assert edge_guard.open(COMMAND, edge.list_payloads(str(COMMAND))[0]) == command
    finally:
        for member in members:
            member.close()
        home.close()
        cloud.close()


@pytest.mark.timed
def test_an_edge_obeys_signed_commands_only_and_tells_of_the_others(
    site: SecureSite, ddnn: list[str], scenes_bundle: Path, tmp_path: Path
) -> None:
    """Unsigned, altered and replayed ones are refused, counted, events, and named by doctor."""
    bundle = read_manifest(scenes_bundle)[1]
    keys = {"site_file": str(site.directory / "page.site"), "state": str(tmp_path / "page")}
    page = Member(site.directory / "page.site").connect("ddnn/v1/home/node/edge/+")
    guard = open_guard(read_config(ObserverSettings, keys, {}))
    assert guard is not None
    flags = ["--bundle", str(scenes_bundle), "--state", str(tmp_path / "edge")]
    flags += ["--site-file", str(site.directory / "edge.site"), "--stats-every-s", "0.3"]
    events: list[str] = []
    registry = Registry(lambda at_s, site, node, text, key: events.append(text))
    seen = 0

    def read_stats() -> Stats | None:
        """The newest statistics of the edge; the page's registry reads all that came."""
        nonlocal seen
        newest = None
        for event in page.events[seen:]:
            seen += 1
            topic = getattr(event, "topic", "")
            if topic.endswith(("/stats", "/status")):
                parsed, message = decode_arrived(topic, event.payload)
                registry.observe(Received(parsed, message))
                newest = message if isinstance(message, Stats) else newest
        return newest

    def send(payload: bytes) -> None:
        page.transport.publish(str(COMMAND), payload, 1, True)

    def make(revision: int, local: float) -> bytes:
        return guard.seal(COMMAND, encode(Thresholds(bundle, {"local": local}, revision)))

    site.fleet.start("edge", [sys.executable, "-m", "edge_app", *flags], {"OMP_NUM_THREADS": "1"})
    try:
        page.wait_until(read_stats)
        old, good = make(1, 0.75), make(2, 0.25)
        send(good)
        page.wait_until(lambda: (s := read_stats()) and s.gauges["threshold_revision"] == 2)
        altered = msgspec.json.decode(make(3, 0.5))
        altered["command"]["thresholds"]["local"] = 1.0
        for payload, count in (
            (encode(Thresholds(bundle, {"local": 1.0}, 9)), UNSIGNED),
            (msgspec.json.encode(altered), FORGED),
            (old, REPLAYED),
        ):
            send(payload)
            stats = page.wait_until(
                lambda count=count: (s := read_stats()) and s.counts.get(count) and s
            )
            assert stats.gauges["threshold_local"] == 0.25
            assert REFUSALS[count] in events
        assert 29 < stats.gauges["certificate_days"] < 30
        assert any("its certificate expires in 30 days" in text for text in events)
        report = run([*ddnn, "doctor", *flags, "--app", "edge", "--json"])
        rows = {row["check"]: row for row in json.loads(report.stdout)}
        assert "MQTT 5 over TLS as edge; the broker's certificate" in rows["mqtt"]["message"]
        assert rows["mqtt"]["remedy"].startswith("ddnn site renew-broker")
        assert all(text in rows["commands"]["message"] for text in REFUSALS.values())
        assert (rows["commands"]["outcome"], rows["round trip"]["outcome"]) == ("warning", "ok")
        assert rows["security"]["outcome"] == "warning"  # the certificate expires soon
        assert "--renew" in rows["security"]["remedy"]
    finally:
        site.fleet.send_signal("edge", signal.SIGTERM)
        page.close()
