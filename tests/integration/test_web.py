"""The page's server over real sockets: streams and their bound, who vanishes, bad input, close."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
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
from cloud_app.web.board import MOST_STREAMS
from ddnn.adapters.broker import free_port, wait_until_listening
from ddnn.errors import ConfigError
from ddnn.protocol.topics import Kind
from ddnn.runtime.fleet import Fleet
from tests.answers_made import make_answer
from tests.browser.chromium import Open, text, wait_for
from tests.integration.site import Voice, mosquitto, start_node
from tests.live_made import BUNDLE, MadeLive, shared_among

TIMEOUT_S = 30.0
NEVER_S = 3600.0  # longer than any test takes


class Site:
    """A store, a Live that a test may change, and the server."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/cloud.db")
        self.live = MadeLive()
        self.app = create_app(self.store, self.live, sign_in=None)
        self.server = serve(self.app, port=0)

    def close(self) -> None:
        self.server.close()
        self.store.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def ask(
    server: Server, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    with closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


class Listener:
    """A client of the stream, as a browser is one."""

    def __init__(self, server: Server, query: str = "", cookie: str = "", read: int = 0) -> None:
        self.socket = socket.socket()
        if read:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(("127.0.0.1", server.port))
        words = f"GET /api/v1/stream{query} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
        self.socket.sendall(words.encode())
        self._file = self.socket.makefile("rb")

    def head(self) -> tuple[int, dict[str, str]]:
        code = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, value = line.decode().split(": ", 1)
            headers[name] = value
        return code, headers

    def events(self) -> Iterator[dict[str, Any]]:
        """Each state; ends where the server ends the stream."""
        for line in self._file:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def state(self) -> dict[str, Any]:
        return next(self.events())

    def is_over(self) -> bool:
        try:
            for _ in self.events():
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def reset(self) -> None:
        """Gone in a hurry: RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


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


def wait_until(true: Callable[[], bool], within_s: float = TIMEOUT_S) -> None:
    until_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.02)


def unread_bytes(server: Server) -> int:
    """The most that waits in the server for one client to read it."""
    channels = list(server._channels.values())
    return max((getattr(channel, "total_outbufs_len", 0) for channel in channels), default=0)


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
    wait_until(lambda: places(site) == MOST_STREAMS)
    asked = site.live.asked
    time.sleep(1.5)
    assert site.live.asked == asked


def test_beyond_the_bound_a_listener_is_told_to_poll(
    site: Site, listen: Callable[..., Listener]
) -> None:
    listeners = [listen() for _ in range(MOST_STREAMS)]
    for listener in listeners:
        assert listener.head()[0] == 200
        listener.state()
    code, headers, body = ask(site.server, "/api/v1/stream")
    assert (code, headers["Content-Type"]) == (503, "application/json")
    assert "ask for /api/v1/state instead" in json.loads(body)["error"]
    assert ask(site.server, "/api/v1/state")[0] == 200  # others still have threads
    listeners[0].close()
    wait_until(lambda: places(site) == 1)
    assert listen().head()[0] == 200


@pytest.mark.parametrize("leave", [Listener.close, Listener.reset])
def test_who_leaves_frees_its_place_within_seconds(
    site: Site, leave: Callable[[Listener], None]
) -> None:
    for _ in range(3):
        listeners = [Listener(site.server) for _ in range(MOST_STREAMS)]
        for listener in listeners:
            listener.head()
            listener.state()
        assert places(site) == 0
        for listener in listeners:
            leave(listener)
        wait_until(lambda: places(site) == MOST_STREAMS, 15)


def test_who_asks_for_the_head_only_takes_no_place(site: Site) -> None:
    for _ in range(2 * MOST_STREAMS):
        assert ask(site.server, "/api/v1/stream", "HEAD")[0] == 200
    wait_until(lambda: places(site) == MOST_STREAMS)


def test_who_does_not_read_is_given_up_and_holds_nobody_back(
    site: Site, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    silence_s = 6.0
    monkeypatch.setattr(server_module, "SILENCE_MS", round(silence_s * 1000))
    site.server.close()
    site.server = serve(site.app, port=0)
    site.live.in_use = replace(BUNDLE, labels=tuple(f"name-{i}" for i in range(60_000)))
    reader, stuck = listen(), listen(read=4096)
    reader.head()
    stuck.head()
    stuck.state()
    reader.state()
    gaps_s, before_s = [], time.monotonic()
    for _ in reader.events():
        gaps_s.append(time.monotonic() - before_s)
        before_s = time.monotonic()
        if places(site) == MOST_STREAMS - 1:
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
    monkeypatch.setattr(board, "EVERY_S", NEVER_S)
    listeners = [listen() for _ in range(MOST_STREAMS)]
    for listener in listeners:
        listener.head()
        listener.state()  # all wait for the next one now
    started_s = time.monotonic()
    site.server.close()
    assert time.monotonic() - started_s < server_module.CLOSE_S  # no request was given up
    assert all(listener.is_over() for listener in listeners)
    assert places(site) == MOST_STREAMS
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name == "web" or name.startswith("waitress")]
    site.server = serve(site.app, port=site.server.port)  # the same app, anew
    again = listen()
    again.head()
    assert again.state()["sites"] == ["home"]


def test_close_ends_a_stream_that_is_not_read(
    site: Site, listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CLOSE_S", TIMEOUT_S)
    site.live.in_use = replace(BUNDLE, labels=tuple(f"name-{i}" for i in range(100_000)))
    stuck = listen(read=4096)
    stuck.head()
    wait_until(lambda: unread_bytes(site.server) > server_module.UNREAD_BYTES)
    started_s = time.monotonic()
    site.server.close()  # while its thread waits for room
    assert time.monotonic() - started_s < TIMEOUT_S / 2
    assert places(site) == MOST_STREAMS


def test_a_port_that_is_taken_is_a_config_error(site: Site) -> None:
    with pytest.raises(ConfigError, match=rf"port {site.server.port}.*choose another"):
        serve(site.app, port=site.server.port)
    with pytest.raises(ConfigError, match="port 70000"):
        serve(site.app, port=70000)


# ------------------------------------------------------------------- bad input


def raw(server: Server, sent: bytes) -> bytes:
    """What the server says to bytes as they are, until it closes or pauses."""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(sent)
        said = b""
        try:
            while more := connection.recv(65536):
                said += more
                connection.settimeout(0.5)
        except (TimeoutError, ConnectionResetError):
            pass
        return said


POST = b"POST /api/v1/labels HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (POST + b"Content-Length: 100000000\r\n\r\n", b"413"),  # before it is sent
        (POST + b"Content-Length: -1\r\n\r\n", b"400"),
        (POST + b"Content-Length: 1e3\r\n\r\n", b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 200_000, b"413"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", b"400"),  # TLS to HTTP
        (b"GET /%ff%fe%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET /api/v1/summary?site=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"403"),  # no Host at all
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: " + b";=" * 500 + b"\r\n\r\n", b"200"),
    ],
)
def test_bad_requests_are_refused_and_the_server_goes_on(
    site: Site, sent: bytes, code: bytes
) -> None:
    said = raw(site.server, sent)
    found = re.match(rb"HTTP/1\.\d (\d+) ", said)
    assert found, said[:200]
    assert found[1] == code
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
        for _ in range(server_module.MOST_CONNECTIONS + 40)
    ]
    for connection in idle:
        connection.close()
    assert ask(site.server, "/healthz")[0] == 200


# --------------------------------------------------------------------- sign-in


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[Callable[..., tuple[Flask, Server]]]:
    """Servers that want a password."""
    store = Store(f"sqlite:///{tmp_path}/signed.db")
    servers: list[Server] = []

    def start(**named: str) -> tuple[Flask, Server]:
        known, _ = SignIn.open(store, tmp_path, password="correct horse")
        app = create_app(store, MadeLive(), sign_in=known)
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
    signed: Callable[..., tuple[Flask, Server]], monkeypatch: pytest.MonkeyPatch
) -> None:
    session_s = 5.0
    monkeypatch.setattr(sign_in, "SESSION_S", session_s)
    _, server = signed()
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
    signed: Callable[..., tuple[Flask, Server]],
) -> None:
    forwarded = {"X-Forwarded-Proto": "https"}
    assert "Secure" not in enter(signed()[1], **forwarded)
    assert "Secure" in enter(signed(trusted_proxy="127.0.0.1")[1], **forwarded)


def test_it_listens_on_ipv6_too(site: Site) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    server = serve(site.app, "::1", 0)
    connection = http.client.HTTPConnection("::1", server.port, timeout=TIMEOUT_S)
    with closing(connection):
        connection.request("GET", "/api/v1/state")
        assert connection.getresponse().status == 200
    server.close()


# --------------------------------------------------------------- shared layers


@pytest.mark.parametrize("role", ["all", "page"])
def test_what_an_edge_tells_at_the_broker_of_its_shared_layer_is_on_the_page(
    role: str, fleet: Fleet, scenes_bundle: Path, tmp_path: Path, opened: Open
) -> None:
    """The real program at a real broker: a worker dies, and then the broker itself."""
    http_port = free_port()
    url = f"http://127.0.0.1:{http_port}"
    place = tmp_path / "broker"
    place.mkdir()

    def shared() -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=TIMEOUT_S)
        with closing(connection):
            connection.request("GET", "/api/v1/sharing?site=home")
            return json.loads(connection.getresponse().read())

    with mosquitto(place, "allow_anonymous true") as port:
        start_node(
            fleet,
            "cloud",
            "cloud",
            port,
            scenes_bundle,
            "--serve",
            role,
            "--sign-in",
            "off",
            "--http-port",
            str(http_port),
            "--state",
            str(tmp_path / "state"),
        )
        wait_until_listening(http_port)
        voice = Voice(port)
        voice.announce("edge", "edge")
        for i in range(6):
            voice.announce(f"worker{i + 1}", "worker")

        def told(*states: str) -> Any:
            voice.say(Kind.OFFLOAD, "edge", shared_among(*states))
            return shared()

        voice.until(lambda: told("live", "lost", "live", "live", "live", "live"))
        page = opened(url)
        wait_for(page, ".shared .enough.good", "5 of 6 shards live: enough. Any one more may")
        voice.announce("worker2", "worker", "lost")
        wait_for(page, "#event-rows", "worker2 died")
        wait_for(page, "#node-rows .lost", "worker2")
        assert "worker1 shard 0 live" in text(page, "#sharing")
        told("lost", "lost", "lost", "live", "live", "live")
        wait_for(page, ".shared .enough.bad", "too few")
        told()
        wait_for(page, ".shared .enough.good", "Any 2 more")
        wait_for(page, ".shared .enough.wait", "Not heard of for")  # the edge says no more
        told()
        voice.close()
    page.locator("#sharing").wait_for(state="hidden")  # the broker is gone: nothing is known
    wait_for(page, "#problems", "No connection to the broker")
    assert shared() == []
