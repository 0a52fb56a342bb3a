"""Hostile text, headers, commands without a token, bodies that are too large."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from cloud_app.store import Store
from cloud_app.views import NodeView
from cloud_app.web import create_app
from tests.site_builder import BUNDLE, FakeSite
from tests.unit.cloud.web_client import Make, get

HOSTILE = "</b><script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}"


def test_hostile_text_is_escaped(store: Store, live: FakeSite, make: Make) -> None:
    store.save([("home", make(bundle=HOSTILE[:16], missing=[HOSTILE], node=HOSTILE))])
    store.save([(HOSTILE[:64], make(2, label=0, truth=1))])
    store.add_event(1.0, HOSTILE[:64], HOSTILE[:64], HOSTILE)
    live.shown = [NodeView(HOSTILE, HOSTILE, HOSTILE, "lost", counts={HOSTILE: 1})]
    live.bundle = replace(BUNDLE, id=HOSTILE, labels=(HOSTILE, HOSTILE))
    html = create_app(store, live, sign_in=None).test_client().get("/").text
    assert "<img src=x" not in html
    assert "<script>alert" not in html
    assert "{{ 7*7 }}" in html  # as it was given: nothing renders it


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/summary", "/healthz", "/metrics", "/static/page.js", "/nowhere"]
)
def test_every_reply_has_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path, buffered=True).headers  # a file is closed by who reads it
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    # An old number must never come out of a cache; a file of the page is asked for again.
    assert headers["Cache-Control"] == ("no-cache" if "static" in path else "no-store")


def test_the_page_has_no_inline_code_and_no_foreign_resource(client: FlaskClient) -> None:
    html = client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", html)
    linked = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert linked
    assert all(re.match(r"/(?!/)", path) for path in linked)
    for path in linked:
        assert client.get(path, buffered=True).status_code == 200, path


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost@evil.example", 403),
        ("evil.example:80@localhost:80#", 403),
        ("192.168.1.5", 403),
        ("::1", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_without_sign_in_only_loopback_names_are_accepted(
    client: FlaskClient, host: str, code: int
) -> None:
    """A foreign name that resolves to 127.0.0.1 is refused (DNS rebinding)."""
    for path in ("/", "/api/v1/state", "/static/page.js", "/nowhere"):
        response = client.get(path, headers={"Host": host}, buffered=True)
        assert response.status_code == (404 if path == "/nowhere" and code == 200 else code)


def test_a_command_requires_the_token_of_its_session(live: FakeSite, client: FlaskClient) -> None:
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    token = get(client, "/api/v1/state")["csrf"]
    other = client.application.test_client().get("/api/v1/state").json["csrf"]
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": other}):
        response = client.post("/api/v1/thresholds", json=command, headers=headers)
        assert response.status_code == 400
        assert "load it again" in response.json["error"]
    assert live.sent == []
    headers = {"X-CSRF-Token": token}
    assert client.post("/api/v1/thresholds", json=command, headers=headers).status_code == 200


def test_bodies_that_are_too_large_or_not_json_are_refused(client: FlaskClient) -> None:
    token = get(client, "/api/v1/state")["csrf"]
    for data, kind, code in (
        (b"x" * 20_000, "application/json", 413),
        (b'{"site": "\xff"}', "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b"", "application/json", 400),
        (b"site=home", "application/x-www-form-urlencoded", 415),
        (b'{"site":"home"}', "text/plain", 415),
    ):
        response = client.post(
            "/api/v1/thresholds/revert",
            data=data,
            content_type=kind,
            headers={"X-CSRF-Token": token},
        )
        assert (response.status_code, list(response.json)) == (code, ["error"]), data[:20]


def test_the_report_is_shown_and_nothing_in_it_runs(
    store: Store, live: FakeSite, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    client = create_app(store, live, sign_in=None, report=file).test_client()
    assert client.get("/report").status_code == 503
    file.write_text("<p>recall</p><script>alert(1)</script>")
    reply = client.get("/report")
    assert (reply.status_code, reply.text) == (200, file.read_text())
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert "script-src" not in reply.headers["Content-Security-Policy"]
    assert '<a href="/report">' in client.get("/").text
    without = create_app(store, live, sign_in=None).test_client()
    assert without.get("/report").status_code == 404
    assert "/report" not in without.get("/").text
