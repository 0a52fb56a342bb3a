"""Lets the demo's page kill and start the demo's processes: a tiny HTTP server on loopback.

    GET  /<token>/nodes           {"cam1": true, …}: which processes run
    POST /<token>/kill/<node>     SIGKILL
    POST /<token>/start/<node>

The token is known to the page's server alone; browsers never talk to this server.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ddnn.errors import DdnnError
from ddnn.runtime.fleet import Fleet

REQUEST_S = 5.0  # a caller that is slower than this is cut off


class Control:
    """Serves until `close`; `url` contains the token."""

    def __init__(self, fleet: Fleet, fixed: frozenset[str] = frozenset()) -> None:
        """`fixed`: nodes that are not to be killed from the page, for they serve it."""
        self._fleet, self._fixed = fleet, fixed
        self._token = secrets.token_urlsafe(16)
        self._lock = threading.Lock()
        self._closed = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{self._token}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._closed = True  # nothing is started behind the back of who ends the processes
        self._server.shutdown()
        self._server.server_close()

    def nodes(self) -> dict[str, bool]:
        names = (node for node in self._fleet.nodes if node not in self._fixed)
        return {node: self._fleet.is_alive(node) for node in names}

    def act(self, what: str, node: str) -> None:
        """DdnnError says why it cannot be done."""
        with self._lock:
            if self._closed:
                raise DdnnError("the demo is ending")
            alive = self.nodes().get(node)
            if alive is None:
                raise DdnnError(f"there is no node {node!r} to {what}")
            if what == "kill":
                self._fleet.send_signal(node, signal.SIGKILL)
            elif what != "start":
                raise DdnnError(f"{what!r}: expected kill or start")
            elif not alive:
                self._fleet.start(node)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        control = self

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_S

            def do_GET(self) -> None:
                parts = self._parts()
                if parts == ["nodes"]:
                    self._reply(200, control.nodes())
                else:
                    self._reply(404, {"error": "not found"})

            def do_POST(self) -> None:
                parts = self._parts()
                if parts is None or len(parts) != 2:
                    self._reply(404, {"error": "not found"})
                    return
                try:
                    control.act(*parts)
                except DdnnError as error:
                    self._reply(409, {"error": str(error)})
                except (OSError, subprocess.SubprocessError) as error:
                    self._reply(500, {"error": f"{' '.join(parts)}: {error}"})
                else:
                    self._reply(200, control.nodes())

            def _parts(self) -> list[str] | None:
                """The path behind the token; None without it."""
                _, _, rest = self.path.partition("/")
                token, _, rest = rest.partition("/")
                known = secrets.compare_digest(token.encode(), control._token.encode())
                return rest.split("/") if known else None

            def _reply(self, code: int, content: object) -> None:
                body = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Nothing: the page asks each second."""

        return Handler
