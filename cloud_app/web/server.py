"""The WSGI server: waitress with bounded resources, which closes without waiting for clients."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from flask import Flask
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]

from cloud_app.web.board import MAX_STREAMS, Streams
from cloud_app.web.connections import TimelyServer
from cloud_app.web.prefix import PathPrefix
from ddnn.errors import ConfigError

CLOSE_S = 5.0  # how long closing waits for requests that are being answered
THREADS = MAX_STREAMS + 8  # each stream occupies one
MAX_CONNECTIONS = 256
MAX_BODY_BYTES = 1 << 16  # refused before it is read; the app has a lower bound of its own
MAX_HEADER_BYTES = 1 << 15
UNREAD_BYTES = 1 << 18  # buffered here for a slow reader before its thread waits
SEND_BUFFER_BYTES = 1 << 16  # buffered in the kernel
# The kernel closes the connection of a client that acknowledges nothing for so long.
SILENCE_MS = 10_000


class Server:
    """A running web server; `port` is the one it got."""

    def __init__(self, app: Flask, host: str, port: int, trusted_proxy: str = "") -> None:
        self._channels: dict[int, Any] = {}
        self._streams: Streams = app.extensions["streams"]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            if port > 65535:
                raise OSError("expected at most 65535")  # create_server() would leak its socket
            listener = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigError(
                f"the page cannot listen on {host} port {port}: {error}; "
                "choose another port, or 0 for any that is free"
            ) from error
        self.port: int = listener.getsockname()[1]
        proxy: dict[str, Any] = {}
        if trusted_proxy:
            headers = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
            proxy = {"trusted_proxy": trusted_proxy, "trusted_proxy_headers": headers}
        settings = Adjustments(
            sockets=[listener],
            ident=None,
            threads=THREADS,
            connection_limit=MAX_CONNECTIONS,
            max_request_body_size=MAX_BODY_BYTES,
            max_request_header_size=MAX_HEADER_BYTES,
            outbuf_high_watermark=UNREAD_BYTES,
            clear_untrusted_proxy_headers=True,
            asyncore_use_poll=True,  # select() fails beyond 1024 open files
            **proxy,
        )
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(settings.threads)
        self._server = TimelyServer(
            app,
            self._channels,
            True,
            listener,
            dispatcher=dispatcher,
            adj=settings,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )
        if trusted_proxy:
            # Outermost: further in, the peer's address is the one that the proxy names.
            self._server.application = PathPrefix(self._server.application, trusted_proxy)
        self._server.adj.socket_options = _socket_options()
        self._streams.open()
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end every connection; a second call does nothing."""
        if not self._thread.is_alive():
            return
        self._streams.close()
        # Channels belong to the server's thread, which ends once it has closed them all. A stream
        # that ends at this moment also wakes it: its trigger may be closed already.
        with contextlib.suppress(OSError):
            self._server.trigger.pull_trigger(self._close_channels)
        self._thread.join(CLOSE_S)
        self._server.task_dispatcher.shutdown(timeout=CLOSE_S)

    def _close_channels(self) -> None:
        for channel in list(self._channels.values()):
            if isinstance(channel, HTTPChannel):
                channel.handle_close()  # unlike close() it wakes a thread that waits for a reader
            else:
                channel.close()


def _socket_options() -> list[tuple[int, int, int]]:
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
    ]
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS))
    return options


def serve(
    app: Flask, host: str = "127.0.0.1", port: int = 8080, *, trusted_proxy: str = ""
) -> Server:
    """Serve in a daemon thread; ConfigError where host and port are not available.

    `trusted_proxy` is the address of a reverse proxy whose X-Forwarded headers are trusted; the
    proxy must set or clear all of them.
    """
    return Server(app, host, port, trusted_proxy)
