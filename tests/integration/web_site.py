"""A site with the real server of the page, and clients of its stream over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from cloud_app.store import Store
from cloud_app.web import Server, create_app, serve
from tests.site_builder import FakeSite

TIMEOUT_S = 30.0
NEVER_S = 3600.0  # longer than any test takes


class Site:
    """A store, a LiveSite that a test may change, and the server."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/cloud.db")
        self.live = FakeSite()
        self.app = create_app(self.store, self.live, sign_in=None)
        self._before = set(threading.enumerate())
        self.server = serve(self.app, port=0)

    def list_threads(self) -> list[threading.Thread]:
        """The threads of this server; another test's may have left some."""
        own = [thread for thread in threading.enumerate() if thread not in self._before]
        return [thread for thread in own if thread.name.startswith(("web", "waitress"))]

    def close(self) -> None:
        self.server.close()
        self.store.close()


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


def wait_until(true: Callable[[], bool], within_s: float = TIMEOUT_S) -> None:
    until_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.02)


def unread_bytes(server: Server) -> int:
    """The most that waits in the server for one client to read it."""
    channels = list(server._channels.values())
    return max((getattr(channel, "total_outbufs_len", 0) for channel in channels), default=0)
