"""Limits of the attempts to sign in, and what is logged of them."""

from __future__ import annotations

import re
import time

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from cloud_app.web import app as web_app
from cloud_app.web import sign_in
from tests.unit.cloud.sign_in_client import PASSWORD, send_password


def test_attempts_are_limited_per_address(app: Flask) -> None:
    def attempt(address: str, password: str) -> TestResponse:
        return send_password(app.test_client(), password, environ_base={"REMOTE_ADDR": address})

    assert [attempt("10.0.0.1", "wrong").status_code for _ in range(5)] == [403] * 5
    refused = attempt("10.0.0.1", PASSWORD)  # also the right one: it must not be found out
    assert refused.status_code == 429
    wait_s = int(refused.headers["Retry-After"])
    assert 1 <= wait_s <= 61
    assert re.search(rf"try again in {wait_s} s", refused.text)
    assert attempt("10.0.0.2", PASSWORD).status_code == 303  # who is elsewhere may go on


def attempt(app: Flask, address: str, given: str = "wrong") -> int:
    """The status of an attempt to sign in from an address."""
    client = app.test_client()
    return send_password(client, given, environ_base={"REMOTE_ADDR": address}).status_code


@pytest.fixture
def quick_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords are compared without the hash, which is slow by design."""
    monkeypatch.setattr(sign_in, "check_password_hash", lambda known, given: given == PASSWORD)


@pytest.mark.usefixtures("quick_hash")
def test_strangers_everywhere_do_not_keep_the_owner_out(app: Flask) -> None:
    assert [attempt(app, f"10.0.0.{i % 9}") for i in range(45)] == [403] * 45
    assert attempt(app, "10.1.0.1", PASSWORD) == 303


@pytest.mark.usefixtures("quick_hash")
def test_the_addresses_of_an_ipv6_network_count_as_one(app: Flask) -> None:
    assert [attempt(app, f"2001:db8::{i}") for i in range(6)] == [403] * 5 + [429]
    assert attempt(app, "2001:db8:0:1::1", PASSWORD) == 303


def test_passwords_that_wait_to_be_compared_do_not_take_all_threads(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in.SignIn, "is_busy", True)
    assert send_password(app.test_client()).status_code == 503


@pytest.mark.parametrize(
    ("requester", "network"),
    [
        ("203.0.113.5", "203.0.113.5/32"),
        ("::ffff:203.0.113.5", "203.0.113.5/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_attempts_count_by_network(
    monkeypatch: pytest.MonkeyPatch, requester: str, network: str
) -> None:
    monkeypatch.setattr(web_app, "find_requester", lambda: requester)
    assert web_app.find_network() == network


def test_attempts_are_allowed_again_later(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        send_password(app.test_client(), "wrong")
    assert send_password(app.test_client()).status_code == 429
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 61)
    assert send_password(app.test_client()).status_code == 303


def test_a_wrong_password_is_logged_without_its_text(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    send_password(app.test_client(), "my-other-password")
    assert "wrong password from 127.0.0.1" in caplog.text
    assert "my-other-password" not in caplog.text
