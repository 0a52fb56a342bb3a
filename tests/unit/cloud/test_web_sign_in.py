"""Access to the page: password, sessions and their end, token of machines."""

from __future__ import annotations

import re
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from cloud_app.store import Store
from cloud_app.web import SignIn, create_app, sign_in
from ddnn.errors import ConfigError, LinkError
from tests.site_builder import FakeSite
from tests.unit.cloud.sign_in_client import PASSWORD, TOKEN, make_app, send_password

COMMAND = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def make_signed_in_client(client: FlaskClient) -> bool:
    return client.get("/api/v1/state").status_code == 200


# -------------------------------------------------------------------- password


def test_a_password_is_made_once_and_kept_as_a_hash(store: Store, tmp_path: Path) -> None:
    first, made = SignIn.open(store, tmp_path)
    assert len(made) >= 20
    assert first.is_password(made)
    kept = store.read_setting(sign_in.PASSWORD_KEY) or ""
    assert kept.startswith("scrypt:")
    assert made not in kept
    second, nothing = SignIn.open(store, tmp_path)
    assert nothing == ""
    assert second.is_password(made)
    assert not second.is_password(made + "x")
    assert (second.key, len(second.key)) == (first.key, 32)


def test_a_given_password_replaces_the_stored_one(store: Store, tmp_path: Path) -> None:
    _, made = SignIn.open(store, tmp_path)
    given, nothing = SignIn.open(store, tmp_path, password=PASSWORD)
    assert (nothing, given.is_password(PASSWORD), given.is_password(made)) == ("", True, False)
    kept = store.read_setting(sign_in.PASSWORD_KEY)
    SignIn.open(store, tmp_path, password=PASSWORD)
    assert store.read_setting(sign_in.PASSWORD_KEY) == kept  # the same: sessions go on


def test_short_secrets_are_refused_and_not_shown(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 8") as refused:
        SignIn.open(store, tmp_path, password="sesame")
    assert "sesame" not in str(refused.value)
    with pytest.raises(ConfigError, match="at least 16"):
        SignIn.open(store, tmp_path, token="sesame")


def test_only_this_user_can_read_the_session_key(tmp_path: Path) -> None:
    file = tmp_path / "session.key"
    key = sign_in.open_session_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sign_in.open_session_key(file) == key
    file.chmod(0o644)  # others may have read it
    assert sign_in.open_session_key(file) != key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"short")
    assert len(sign_in.open_session_key(file)) == 32
    with pytest.raises(ConfigError, match="cannot be written"):
        sign_in.open_session_key(tmp_path / "nowhere" / "session.key")


# -------------------------------------------------------------------- sessions


def test_without_a_session_every_closed_route_is_refused(client: FlaskClient) -> None:
    page = client.get("/")
    assert (page.status_code, page.headers["Location"]) == (303, "/login")
    for path in ("state", "stream", "answers", "openapi.json", "demo/views/1.png"):
        response = client.get(f"/api/v1/{path}")
        assert response.status_code == 401
        assert "sign in at /login" in response.json["error"]
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/metrics").status_code == 401
    assert client.post("/api/v1/thresholds", json=COMMAND).status_code == 401
    assert client.post("/logout").status_code == 401
    for path in ("/healthz", "/readyz", "/static/page.css", "/login"):
        assert client.get(path, buffered=True).status_code == 200


def test_the_password_starts_a_session_and_signing_out_ends_it(client: FlaskClient) -> None:
    entered = send_password(client)
    assert (entered.status_code, entered.headers["Location"]) == (303, "/")
    assert client.get("/").status_code == 200
    state = client.get("/api/v1/state").json
    assert state["signed_in"] is True
    assert client.get("/login").headers["Location"] == "/"
    headers = {"X-CSRF-Token": state["csrf"]}
    assert client.post("/api/v1/thresholds", json=COMMAND, headers=headers).status_code == 200
    assert client.post("/logout").status_code == 400  # not without the token
    assert client.post("/logout", headers=headers).status_code == 204
    assert not make_signed_in_client(client)


def test_a_wrong_password_is_reported(client: FlaskClient) -> None:
    for password in ("wrong", "", PASSWORD.upper(), "\0", "ü" * 100):
        response = send_password(client, password)
        assert response.status_code == 403
        assert "That is not the password." in response.text
    assert not make_signed_in_client(client)


def test_the_cookie_cannot_be_read_by_scripts_or_sent_from_elsewhere(client: FlaskClient) -> None:
    cookie = send_password(client).headers["Set-Cookie"]
    assert re.match(r"ddnn-[0-9a-f]{8}=", cookie)
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    again = send_password(client.application.test_client(), base_url="https://site.example")
    assert "Secure" in again.headers["Set-Cookie"]


def test_a_cookie_without_a_valid_signature_is_refused(client: FlaskClient, app: Flask) -> None:
    name = app.config["SESSION_COOKIE_NAME"]
    send_password(client)
    value = client.get_cookie(name).value  # type: ignore[union-attr]
    body, rest = value.split(".", 1)
    # Not the last character: some of its bits are none of the signature's.
    flipped = value[:-5] + ("A" if value[-5] != "A" else "B") + value[-4:]
    for forged in (flipped, f"{body}x.{rest}", "x", ""):
        other = app.test_client()
        other.set_cookie(name, forged)
        assert not make_signed_in_client(other)
    other.set_cookie(name, value)
    assert make_signed_in_client(other)


def test_a_session_ends_after_twelve_hours(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_password(client)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 12 * 3600 - 60)
    assert make_signed_in_client(client)
    monkeypatch.setattr(time, "time", lambda: now_s + 12 * 3600 + 60)
    assert not make_signed_in_client(client)


def test_a_new_password_ends_all_sessions(
    store: Store, tmp_path: Path, client: FlaskClient, app: Flask
) -> None:
    send_password(client)
    name = app.config["SESSION_COOKIE_NAME"]
    cookie = client.get_cookie(name).value  # type: ignore[union-attr]

    def accepts(password: str) -> bool:
        again = make_app(store, tmp_path, password).test_client()
        again.set_cookie(name, cookie)
        return make_signed_in_client(again)

    assert accepts(PASSWORD)  # a restart does not
    assert not accepts("battery staple")
    assert not accepts(PASSWORD)  # the same words are another hash


def test_an_expired_form_is_reported(client: FlaskClient) -> None:
    client.get("/login")
    response = client.post("/login", data={"password": PASSWORD, "csrf": "old"})
    assert response.status_code == 400
    assert "load it again" in response.text
    assert '<form method="post"' in response.text
    response = client.post("/login", data={"password": PASSWORD})
    assert response.status_code == 400
    assert not make_signed_in_client(client)


def test_signing_in_changes_the_token(client: FlaskClient) -> None:
    """A token planted before the sign-in must not be valid after it."""
    (before,) = re.findall(r'name="csrf" value="([^"]+)"', client.get("/login").text)
    client.post("/login", data={"password": PASSWORD, "csrf": before})
    client.get("/api/v1/state")
    headers = {"X-CSRF-Token": before}
    assert client.post("/api/v1/thresholds", json=COMMAND, headers=headers).status_code == 400


def test_without_sign_in_there_is_no_form(store: Store) -> None:
    client = create_app(store, FakeSite(), sign_in=None).test_client()
    assert client.get("/login").headers["Location"] == "/"
    assert client.get("/api/v1/state").json["signed_in"] is False


def test_with_sign_in_any_host_name_is_accepted(client: FlaskClient) -> None:
    assert client.get("/login", headers={"Host": "site.example"}).status_code == 200


# -------------------------------------------------------------------- machines


def test_the_token_of_machines_only_reads(client: FlaskClient) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/metrics", headers=bearer).status_code == 200
    state = client.get("/api/v1/state", headers=bearer)
    assert state.status_code == 200
    assert (state.json["signed_in"], state.json["csrf"]) == (False, "")
    assert "Set-Cookie" not in state.headers
    response = client.post("/api/v1/thresholds", json=COMMAND, headers=bearer)
    assert response.status_code == 403
    assert "only reads" in response.json["error"]


@pytest.mark.parametrize(
    "given", ["Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
def test_a_wrong_token_is_refused(client: FlaskClient, given: str) -> None:
    assert client.get("/metrics", headers={"Authorization": given}).status_code == 401


def test_without_a_configured_token_every_token_is_refused(store: Store, tmp_path: Path) -> None:
    known, _ = SignIn.open(store, tmp_path, password=PASSWORD)
    client = create_app(store, FakeSite(), sign_in=known).test_client()
    for given in ("Bearer", "Bearer ", "Bearer None"):
        assert client.get("/metrics", headers={"Authorization": given}).status_code == 401


# -------------------------------------------------------------------- attempts


def test_a_copied_cookie_is_over_after_signing_out(
    client: FlaskClient, app: Flask, store: Store, tmp_path: Path
) -> None:
    send_password(client)
    name = app.config["SESSION_COOKIE_NAME"]
    cookie = client.get_cookie(name)
    assert cookie is not None
    other = app.test_client()
    send_password(other)

    def answer_copy(of: Flask) -> int:
        thief = of.test_client()
        thief.set_cookie(name, cookie.value)
        return thief.get("/api/v1/state").status_code

    assert answer_copy(app) == 200
    token = client.get("/api/v1/state").json["csrf"]
    assert client.post("/logout", headers={"X-CSRF-Token": token}).status_code == 204
    assert answer_copy(app) == 401
    assert make_signed_in_client(other)  # another session goes on
    assert answer_copy(make_app(store, tmp_path)) == 401  # also after a restart


def test_signing_out_ends_the_session_also_while_the_database_is_away(
    client: FlaskClient, app: Flask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_password(client)
    token = client.get("/api/v1/state").json["csrf"]

    def fail(key: str, value: str) -> None:
        raise LinkError("away")

    monkeypatch.setattr(store, "write_setting", fail)
    assert client.post("/logout", headers={"X-CSRF-Token": token}).status_code == 503
    assert client.get("/api/v1/state").status_code == 401


def test_two_pages_on_one_database_keep_the_sessions_that_each_ended(
    store: Store, tmp_path: Path
) -> None:
    """Each signs its cookies by a key of its own."""
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        directory.mkdir()
    cookies = []
    for directory in directories:
        client = make_app(store, directory).test_client()
        send_password(client)
        name = client.application.config["SESSION_COOKIE_NAME"]
        cookies.append((name, client.get_cookie(name).value))
        token = client.get("/api/v1/state").json["csrf"]
        assert client.post("/logout", headers={"X-CSRF-Token": token}).status_code == 204
    for directory, (name, value) in zip(directories, cookies, strict=True):
        thief = make_app(store, directory).test_client()
        thief.set_cookie(name, value)
        assert thief.get("/api/v1/state").status_code == 401


def test_a_stranger_learns_no_address_and_no_path(app: Flask) -> None:
    site = app.extensions["tested_site"]
    site.away = "unable to open /var/lib/ddnn/cloud.db"
    site.broker = replace(site.broker, connected=False, broker="edge.lan:1883", reason="refused")
    stranger = app.test_client().get("/readyz")
    assert stranger.status_code == 503
    assert stranger.json == {"error": "not ready: no broker; answers cannot be written"}
    for known in (app.test_client(), app.test_client()):
        send_password(known)
        assert "/var/lib/ddnn" in known.get("/readyz").text
    machine = app.test_client().get("/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
    assert "edge.lan:1883" in machine.text
