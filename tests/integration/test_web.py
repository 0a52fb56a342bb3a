"""The page's server over real sockets: streams and their bound, clients that vanish, bad input."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from cloud_app.store import Store
from cloud_app.web import Server, SignIn, board, create_app, serve, sign_in
from cloud_app.web import server as server_module
from cloud_app.web.board import MAX_STREAMS
from ddnn.errors import ConfigError
from tests.answer_builder import make_answer
from tests.integration.web_site import TIMEOUT_S, Listener, Site, ask, wait_until
from tests.site_builder import BUNDLE, FakeSite

NEVER_S = 3600.0  # longer than any test takes


def unread_bytes(server: Server) -> int:
    """The most that waits in the server for one client to read it."""
    channels = list(server._channels.values())
    return max((getattr(channel, "total_outbufs_len", 0) for channel in channels), default=0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def listen(site: Site) -> Iterator[Callable[..., Listener]]:
    listeners: list[Listener] = []

    def listen(*args: Any, **named: Any) -> Listener:
        listeners.append(Listener(site.server, *args, **named))
        return listeners[-1]

    yield listen
    for listener in listeners:
        listener.close()


def places(site: Site) -> int:
    """How many more may listen."""
    free: threading.BoundedSemaphore = site.app.extensions["streams"]._free
    return free._value  # type: ignore[attr-defined,no-any-return]


# --------------------------------------------------------------------- streams


def test_listeners_get_each_second_the_same_state(
    site: Site, listen: Callable[..., Listener]
) -> None:
    listeners = [listen() for _ in range(6)]
    for listener in listeners:
        code, headers = listener.head()
        assert code == 200
        assert headers["Content-Type"].startswith("text/event-stream")
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Accel-Buffering"] == "no"
    for listener in listeners:
        listener.state()  # the first comes at once
    asked, started_s = site.live.asked, time.monotonic()
    seen = [[listener.state()["at_s"] for _ in range(3)] for listener in listeners]
    # Made once a second, not once for each; who is late gets the next one.
    made, took_s = site.live.asked - asked, time.monotonic() - started_s
    assert made <= took_s + 2
    assert len({at_s for times in seen for at_s in times}) <= made + 1
    for times in seen:
        assert times == sorted(set(times))
        assert times[-1] - times[0] > 1  # two seconds, of which the first may have begun late


def test_a_stream_shows_what_changes(site: Site, listen: Callable[..., Listener]) -> None:
    listener = listen("?site=home")
    listener.head()
    assert listener.state()["summary"]["answered"] == 0
    site.store.save([("home", make_answer(i)) for i in range(5)])
    site.live.lose_broker()
    assert next(s for s in listener.events() if not s["link"]["connected"])
    assert listener.state()["summary"]["answered"] == 5


def test_nothing_is_made_while_nobody_listens(site: Site) -> None:
    listener = Listener(site.server)
    listener.head()
    listener.state()
    listener.close()
    wait_until(lambda: places(site) == MAX_STREAMS)
    asked = site.live.asked
    time.sleep(1.5)
    assert site.live.asked == asked


def test_beyond_the_bound_a_listener_is_told_to_poll(
    site: Site, listen: Callable[..., Listener]
) -> None:
    listeners = [listen() for _ in range(MAX_STREAMS)]
    for listener in listeners:
        assert listener.head()[0] == 200
        listener.state()
    code, headers, body = ask(site.server, "/api/v1/stream")
    assert (code, headers["Content-Type"]) == (503, "application/json")
    assert "read /api/v1/state instead" in json.loads(body)["error"]
    assert ask(site.server, "/api/v1/state")[0] == 200  # others still have threads
    listeners[0].close()
    wait_until(lambda: places(site) == 1)
    assert listen().head()[0] == 200


@pytest.mark.parametrize("leave", [Listener.close, Listener.reset])
def test_who_leaves_frees_its_place_within_seconds(
    site: Site, leave: Callable[[Listener], None]
) -> None:
    for _ in range(3):
        listeners = [Listener(site.server) for _ in range(MAX_STREAMS)]
        for listener in listeners:
            listener.head()
            listener.state()
        assert places(site) == 0
        for listener in listeners:
            leave(listener)
        wait_until(lambda: places(site) == MAX_STREAMS, 15)


def test_who_asks_for_the_head_only_takes_no_place(site: Site) -> None:
    for _ in range(2 * MAX_STREAMS):
        assert ask(site.server, "/api/v1/stream", "HEAD")[0] == 200
    wait_until(lambda: places(site) == MAX_STREAMS)


def test_who_does_not_read_is_given_up_and_holds_nobody_back(
    site: Site, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    silence_s = 6.0
    monkeypatch.setattr(server_module, "SILENCE_MS", round(silence_s * 1000))
    site.server.close()
    site.server = serve(site.app, port=0)
    site.live.bundle = replace(BUNDLE, labels=tuple(f"name-{i}" for i in range(60_000)))
    reader, stuck = listen(), listen(read=4096)
    reader.head()
    stuck.head()
    stuck.state()
    reader.state()
    gaps_s, before_s = [], time.monotonic()
    for _ in reader.events():
        gaps_s.append(time.monotonic() - before_s)
        before_s = time.monotonic()
        if places(site) == MAX_STREAMS - 1:
            break
        assert len(gaps_s) < 60
    assert max(gaps_s) < silence_s - 1
    assert stuck.is_over()


# ----------------------------------------------------------------------- close


def test_the_server_answers_until_it_is_closed(site: Site) -> None:
    server = site.server
    assert ask(server, "/healthz")[::2] == (200, b"ok\n")
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    kept.request("GET", "/healthz")
    kept.getresponse().read()
    server.close()
    server.close()
    assert kept.sock.recv(1) == b""  # a kept connection has ended too
    kept.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/healthz")


def test_close_ends_streams_at_once_and_all_threads(
    site: Site, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "PERIOD_S", NEVER_S)
    listeners = [listen() for _ in range(MAX_STREAMS)]
    for listener in listeners:
        listener.head()
        listener.state()  # all wait for the next one now
    started_s = time.monotonic()
    site.server.close()
    assert time.monotonic() - started_s < server_module.CLOSE_S  # no request was given up
    assert all(listener.is_over() for listener in listeners)
    assert places(site) == MAX_STREAMS
    wait_until(lambda: not site.list_threads())
    site.server = serve(site.app, port=site.server.port)  # the same app again
    again = listen()
    again.head()
    assert again.state()["sites"] == ["home"]


def test_close_ends_a_stream_that_is_not_read(
    site: Site, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CLOSE_S", TIMEOUT_S)
    site.live.bundle = replace(BUNDLE, labels=tuple(f"name-{i}" for i in range(100_000)))
    stuck = listen(read=4096)
    stuck.head()
    wait_until(lambda: unread_bytes(site.server) > server_module.UNREAD_BYTES)
    started_s = time.monotonic()
    site.server.close()  # while its thread waits for room
    assert time.monotonic() - started_s < TIMEOUT_S / 2
    assert places(site) == MAX_STREAMS


def test_a_port_that_is_taken_is_a_config_error(site: Site) -> None:
    with pytest.raises(ConfigError, match=rf"port {site.server.port}.*choose another"):
        serve(site.app, port=site.server.port)
    with pytest.raises(ConfigError, match="port 70000"):
        serve(site.app, port=70000)


# ------------------------------------------------------------------- bad input


def ask_raw(server: Server, sent: bytes) -> int:
    """The status of the server's whole response to bytes as they are."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        response.read()
        return response.status


POST = b"POST /api/v1/labels HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (POST + b"Content-Length: 100000000\r\n\r\n", 413),  # before it is sent
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 1e3\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 200_000, 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400),  # TLS to HTTP
        (b"GET /%ff%fe%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /api/v1/summary?site=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 403),  # no Host at all
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: " + b";=" * 500 + b"\r\n\r\n", 200),
    ],
)
def test_bad_requests_are_refused_and_the_server_goes_on(
    site: Site, sent: bytes, code: int
) -> None:
    assert ask_raw(site.server, sent) == code
    assert ask(site.server, "/healthz")[0] == 200


def test_many_ask_at_once_while_answers_come(site: Site) -> None:
    paths = ("/", "/api/v1/state", "/api/v1/series", "/api/v1/answers", "/metrics")
    codes: list[int] = []

    def ask_all() -> None:
        codes.extend(ask(site.server, path)[0] for path in paths * 3)

    threads = [threading.Thread(target=ask_all) for _ in range(20)]
    for thread in threads:
        thread.start()
    for first in range(0, 2000, 100):
        site.store.save([("home", make_answer(i)) for i in range(first, first + 100)])
    for thread in threads:
        thread.join(60)
    assert codes == [200] * (20 * len(paths) * 3)


def test_connections_beyond_the_bound_wait(site: Site) -> None:
    idle = [
        socket.create_connection(("127.0.0.1", site.server.port), TIMEOUT_S)
        for _ in range(server_module.MAX_CONNECTIONS + 40)
    ]
    for connection in idle:
        connection.close()
    assert ask(site.server, "/healthz")[0] == 200


# --------------------------------------------------------------------- sign-in


@pytest.fixture
def start_signed(tmp_path: Path) -> Iterator[Callable[..., tuple[Flask, Server]]]:
    """Servers that want a password."""
    store = Store(f"sqlite:///{tmp_path}/signed.db")
    servers: list[Server] = []

    def start(**named: str) -> tuple[Flask, Server]:
        known, _ = SignIn.open(store, tmp_path, password="correct horse")
        app = create_app(store, FakeSite(), sign_in=known)
        servers.append(serve(app, port=0, **named))
        return app, servers[-1]

    yield start
    for server in servers:
        server.close()
    store.close()


def enter(server: Server, **headers: str) -> str:
    """The cookie as it is set by signing in."""
    _, given, form = ask(server, "/login", **headers)
    (csrf,) = re.findall(rb'name="csrf" value="([^"]+)"', form)
    code, given, _ = ask(
        server,
        "/login",
        "POST",
        b"password=correct+horse&csrf=" + csrf,
        **{
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": given["Set-Cookie"].split(";")[0],
            **headers,
        },
    )
    assert code == 303
    return given["Set-Cookie"]


def test_a_stream_ends_with_its_session(
    start_signed: Callable[..., tuple[Flask, Server]], monkeypatch: pytest.MonkeyPatch
) -> None:
    session_s = 5.0
    monkeypatch.setattr(sign_in, "SESSION_S", session_s)
    _, server = start_signed()
    assert ask(server, "/api/v1/stream")[0] == 401
    cookie = enter(server).split(";")[0]
    listener = Listener(server, cookie=cookie)
    with closing(listener):
        assert listener.head()[0] == 200
        states = list(listener.events())
        assert 1 <= len(states) <= session_s + 2
        assert all(state["signed_in"] for state in states)
    assert ask(server, "/api/v1/stream", Cookie=cookie)[0] == 401


def test_only_a_trusted_proxy_tells_of_https(
    start_signed: Callable[..., tuple[Flask, Server]],
) -> None:
    forwarded = {"X-Forwarded-Proto": "https"}
    assert "Secure" not in enter(start_signed()[1], **forwarded)
    assert "Secure" in enter(start_signed(trusted_proxy="127.0.0.1")[1], **forwarded)


def test_it_listens_on_ipv6_too(site: Site) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    server = serve(site.app, "::1", 0)
    connection = http.client.HTTPConnection("::1", server.port, timeout=TIMEOUT_S)
    with closing(connection):
        connection.request("GET", "/api/v1/state")
        assert connection.getresponse().status == 200
    server.close()
