"""Nodes as processes of this machine, which can be started, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ddnn.errors import ConfigError, DdnnError

TERMINATE_S = 6.0


@contextlib.contextmanager
def _defer_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM: between the start of a process and the record of its id, a signal
    would leave the process running."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals interrupt the main thread only
        return
    deferred: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(n, lambda number, _: deferred.append(number)) for n in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for caught in deferred:
            signal.raise_signal(signal.Signals(caught))


class Fleet:
    """Processes by node id. Ends only the processes that it started, by process id."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, node: str, command: Sequence[str] | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a node; without `command` again with its last one. The output goes to its log."""
        if command is not None:
            self._commands[node] = (list(command), dict(env or {}))
        command, variables = self._commands[node]
        if self.is_alive(node):
            raise ConfigError(f"{node} is running already")
        with (self._logs / f"{node}.log").open("ab") as log, _defer_signals():
            self._running[node] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **variables},
                start_new_session=True,  # Ctrl-C reaches the parent, which ends them in order
            )

    @property
    def nodes(self) -> list[str]:
        return list(self._commands)

    def is_alive(self, node: str) -> bool:
        process = self._running.get(node)
        return process is not None and process.poll() is None

    def find_pid(self, node: str) -> int:
        return self._running[node].pid

    def send_signal(self, node: str, number: signal.Signals) -> None:
        """Send a signal, SIGKILL and SIGSTOP included."""
        if self.is_alive(node):
            self._running[node].send_signal(number)
            if number == signal.SIGKILL:
                self._running[node].wait(TERMINATE_S)

    def require_alive(self, node: str) -> None:
        """Raise DdnnError with the last line of the log where a node has ended by itself."""
        if not self.is_alive(node):
            raise DdnnError(f"{node} ended: {self.read_last_line(node)}")

    def read_last_line(self, node: str) -> str:
        """The last line of a node's log."""
        with contextlib.suppress(OSError):
            lines = (self._logs / f"{node}.log").read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else "no output"
        return "no log"

    def close(self) -> None:
        """End all processes; the first one (the broker) last, so that it receives the others'
        last messages."""
        running = [p for p in self._running.values() if p.poll() is None]
        try:
            for group in (running[1:], running[:1]):
                for process in group:
                    process.terminate()
                    process.send_signal(signal.SIGCONT)  # a stopped process does not handle SIGTERM
                until_s = time.monotonic() + TERMINATE_S
                for process in group:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(max(0.1, until_s - time.monotonic()))
        finally:  # a second Ctrl-C leaves no process running either
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait(TERMINATE_S)
