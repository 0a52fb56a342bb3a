"""The page, its numbers as JSON, its headers; what the network says is text, never markup."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from cloud_app.store import Store
from cloud_app.web import BundleView, NodeView, Server, create_app, serve
from ddnn.errors import ConfigError, LinkError
from ddnn.protocol.messages import Answer

Make = Callable[..., Answer]
HOSTILE = "</b><script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}"
NODES = [
    NodeView("home", "edge", "edge", "online", "b1", 0.4, 96_000_000, {"answered": 12_345}),
    NodeView("home", "cam1", "device", "lost", "b1", 75.0),
    NodeView("home", "cam2", "device", "stopped"),
]
BUNDLE = BundleView("b1", 3072, 960.0, ("car", "bus", "person"))


def app_of(store: Store, nodes: list[NodeView] = NODES, bundle: BundleView = BUNDLE) -> Flask:
    return create_app(store, lambda: nodes, lambda: bundle)


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return app_of(store).test_client()


def words(html: str) -> str:
    """What a reader sees, with single spaces."""
    text = re.sub(r"<[^>]*>", " ", re.sub(r"<head>.*</head>", "", html, flags=re.S))
    return re.sub(r"\s+", " ", text)


def page(client: FlaskClient) -> str:
    response = client.get("/")
    assert response.status_code == 200
    return words(response.text)


def test_the_page_shows_the_numbers(store: Store, client: FlaskClient, make: Make) -> None:
    now_s = time.time()
    store.save([("home", make(i, answered_at_s=now_s)) for i in range(3)])
    wrong = make(3, exit="cloud", label=2, members=["cam1"], missing=["cam2"], quality="degraded")
    store.save([("home", wrong)])
    store.add_event(now_s - 300, "home", "cam1", "lost")
    seen = page(client)
    for expected in (
        "Samples answered 4",
        "Accuracy 75.0 % of 4 with known truth; expected 90.0 %",
        "Sent 45.7 B per sample and device, 67× less than raw",  # 4 x 80 bytes of 7 devices
        "Degraded 1 0 delivered late",
        "Nodes online 1 of 3 absent: cam1, cam2",
        "local 3 75.0 % 100.0 % 500.0 ms p99 500.0 ms",
        "cloud 1 25.0 % 0.0 %",
        "sent arrays only 45.7 B sent with headers 171.4 B JPEG quality 90 960.0 B raw the image",
        "3,072 B",
        "edge edge online now 96 MB b1 answered 12,345",
        "cam1 device lost 75 s ago",
        "cam2 device stopped never seen",
        "person wrong: bus cloud 500.0 ms degraded without cam2",
        "bus right local",
        "cam1 lost 5 min ago",
    ):
        assert expected in seen
    assert "device 0 " not in seen  # an exit that answered nothing is not shown


def test_an_empty_store_is_a_page_too(store: Store) -> None:
    seen = page(app_of(store, [], BundleView("", 3072)).test_client())
    assert "Samples answered 0 none yet" in seen
    assert "No node has reported yet." in seen
    assert "JPEG" not in seen


def test_sites_are_named_where_there_are_several(store: Store, make: Make) -> None:
    store.save([("home", make())])
    assert "home" not in page(app_of(store).test_client())
    store.save([("shop", make())])
    seen = page(app_of(store).test_client())
    assert "device, home" in seen
    assert "ago, shop bus right" in seen


def test_a_label_without_a_name_is_its_number(store: Store, make: Make) -> None:
    store.save([("home", make(1, label=7, truth=-1)), ("home", make(2, label=-1, truth=None))])
    seen = page(app_of(store).test_client())
    assert re.search(r"ago 7 (?!wrong)", seen)
    assert "no label" in seen
    assert "no truth known" in seen


def test_the_api_gives_raw_numbers(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(1)), ("home", make(2, exit="edge", latency_s=0.25, late=True))])
    store.add_event(5.0, "home", "cam1", "joined")
    response = client.get("/api/v1/summary")
    assert response.mimetype == "application/json"
    data: dict[str, Any] = json.loads(response.text)
    assert abs(data["at_s"] - time.time()) < 60
    assert data["bundle"]["raw_bytes"] == 3072
    summary = data["summary"]
    assert (summary["answered"], summary["late"], summary["accuracy"]) == (2, 1, 1.0)
    assert (summary["payload_bytes"], summary["wire_bytes"]) == (40.0, 150.0)
    assert summary["quality"] == {"full": 2, "degraded": 0}
    assert summary["exits"]["edge"] == {
        "answered": 1,
        "share": 0.5,
        "accuracy": 1.0,
        "latency_p50_s": 0.25,
        "latency_p99_s": 0.25,
    }
    assert [node["id"] for node in data["nodes"]] == ["edge", "cam1", "cam2"]
    assert [record["answer"]["sample"] for record in data["answers"]] == [2, 1]
    assert data["events"] == [{"at_s": 5.0, "site": "home", "node": "cam1", "what": "joined"}]


def test_the_page_as_it_comes_is_the_view_of_the_api(
    store: Store, client: FlaskClient, make: Make
) -> None:
    """Both show the same words, so the first poll changes nothing but ages."""
    store.save([("home", make(1, missing=["cam9"]))])
    view = json.loads(client.get("/api/v1/summary").text)["view"]
    seen = page(client)
    for name in ("answered", "accuracy", "bytes", "reduction", "online", "absent", "known"):
        assert re.sub(r"\s+", " ", view["texts"][name]) in seen
    html = client.get("/").text
    assert {*re.findall(r'data-text="(\w+)"', html)} <= view["texts"].keys()
    assert {*re.findall(r'data-table="(\w+)"', html)} == view["tables"].keys()


def test_only_the_newest_are_shown(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(i)) for i in range(100, 150)])
    for i in range(30):
        store.add_event(float(i), "home", "cam1", f"event-{i}")
    tables = json.loads(client.get("/api/v1/summary").text)["view"]["tables"]
    assert [row[0]["text"] for row in tables["answers"]] == [str(i) for i in range(149, 129, -1)]
    assert len(tables["events"]) == 20


# ------------------------------------------------------------------ security


def test_hostile_text_stays_text(store: Store, make: Make) -> None:
    store.save([("home", make(bundle=HOSTILE[:16], missing=[HOSTILE], node=HOSTILE))])
    store.save([(HOSTILE, make(2, label=0, truth=1))])
    store.add_event(1.0, HOSTILE, HOSTILE, HOSTILE)
    node = NodeView(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0, 1, {HOSTILE: 1})  # type: ignore[arg-type]
    bundle = BundleView(HOSTILE, 3072, 960.0, (HOSTILE, HOSTILE))
    html = app_of(store, [node], bundle).test_client().get("/").text
    assert "<img" not in html
    assert "alert('x')" not in html
    assert "{{ 7*7 }}" in html  # as it was given: nothing renders it
    assert html.count("<script") == 1
    assert html.count("&lt;script&gt;") >= 10


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/summary", "/healthz", "/static/page.js", "/nowhere"]
)
def test_security_headers_on_everything(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_nothing_inline_and_nothing_from_elsewhere(
    store: Store, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make())])
    html = client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", html)
    assert all(path.startswith("/static/") for path in re.findall(r'(?:src|href)="([^"]*)"', html))
    for path in re.findall(r'(?:src|href)="([^"]*)"', html):
        asset = client.get(path)
        assert asset.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", asset.text)


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_the_page_only_reads(client: FlaskClient, method: str) -> None:
    assert getattr(client, method)("/").status_code == 405
    assert getattr(client, method)("/api/v1/summary").status_code == 405


# -------------------------------------------------------------------- health


def test_health_follows_the_store(
    store: Store, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/healthz").status_code == 200

    def away(*_: object, **__: object) -> None:
        raise LinkError("database x: it is gone; try again")

    for name in ("summary", "events"):
        monkeypatch.setattr(store, name, away)
    for path in ("/healthz", "/", "/api/v1/summary"):
        response = client.get(path)
        assert response.status_code == 503
        assert "it is gone" in response.text
        assert response.mimetype == "text/plain"


# -------------------------------------------------------------------- server


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    server = serve(app_of(store), port=0)
    yield server
    server.close()


def get(server: Server, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_the_server_answers_until_it_is_closed(server: Server) -> None:
    assert get(server, "/healthz") == (200, "ok\n")
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    kept.request("GET", "/healthz")
    kept.getresponse().read()
    server.close()
    server.close()
    assert kept.sock.recv(1) == b""  # a kept connection has ended too
    kept.close()
    with pytest.raises(ConnectionRefusedError):
        get(server, "/healthz")
    assert "web" not in {thread.name for thread in threading.enumerate()}


def test_a_port_that_is_taken_is_a_config_error(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port}.*choose another"):
            serve(app_of(store), port=port)
    with pytest.raises(ConfigError, match="port 70000"):
        serve(app_of(store), port=70000)
