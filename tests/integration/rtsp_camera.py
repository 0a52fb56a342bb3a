"""A network camera that speaks RTSP, and a relay between it and a device."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
from pathlib import Path

from ddnn.adapters.broker import free_port
from tests.integration.sample_taker import IN_TIME_S

TURN_S = 2  # how long the RTSP server shows a colour
LATE_S = 1.0  # a busy machine encodes, sends and decodes a picture within this
SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's: it has gi
PASSWORD = "hu%40sh"


class RtspCamera:
    """A network camera in a process of its own, which tests kill, stop and start again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    def uri(self, password: str = PASSWORD) -> str:
        return f"rtsp://viewer:{password}@127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), str(self.port), "viewer", "hu@sh"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=5)
            self._process = None


class StallingLink:
    """A relay between a camera and a device that holds data back while `flows` is not set."""

    def __init__(self, port: int) -> None:
        self.flows = threading.Event()
        self.flows.set()
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._to))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                self.flows.wait(IN_TIME_S)
                sink.sendall(data)

    def close(self) -> None:
        self.flows.set()
        self._listener.close()
