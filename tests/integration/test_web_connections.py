"""Connections that never finish their requests do not keep others out of the page."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_app.store import Store
from cloud_app.web import Server, connections, create_app, serve
from cloud_app.web import server as server_module
from tests.site_builder import FakeSite

LIMIT = 40


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", LIMIT)
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    server = serve(create_app(store, FakeSite(), sign_in=None), port=0)
    yield server
    server.close()
    store.close()


def ask(server: Server, path: str = "/healthz") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=20) as reply:
        return bytes(reply.read())


def read_reply(client: socket.socket) -> bytes:
    """A reply of /healthz, which may come in parts."""
    reply = b""
    while not reply.endswith(b"ok\n"):
        part = client.recv(4096)
        assert part, reply
        reply += part
    return reply


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_dripping_connections_do_not_block_the_page(server: Server, first: bytes) -> None:
    drips = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * LIMIT)]
    try:
        for number, drip in enumerate(drips):
            if first:
                try:
                    drip.sendall(first + b"x")
                except OSError:
                    continue  # closed already, for a newer one
            if number % 20 == 0:
                assert ask(server) == b"ok\n"
        assert ask(server) == b"ok\n"
        assert b"<html" in ask(server, "/")
    finally:
        for drip in drips:
            drip.close()


def test_a_request_that_takes_too_long_is_closed_and_a_connection_may_rest(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    resting = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    resting.sendall(request)
    assert b" 200 " in read_reply(resting)
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    slow = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    is_closed = False
    with slow:
        slow.sendall(request[:-2] + b"X: ")
        until_s = time.monotonic() + 20
        while not is_closed and time.monotonic() < until_s:
            try:
                slow.sendall(b"a")  # some activity all the time, and the header never ends
            except OSError:
                is_closed = True
            time.sleep(0.05)
    assert is_closed
    resting.sendall(request)  # longer than REQUEST_S after its first request
    assert b" 200 " in read_reply(resting)
    resting.close()
