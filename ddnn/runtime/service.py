"""Runs a loop as a program, until a signal ends it or the machine fails."""

from __future__ import annotations

import logging
import signal
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from ddnn.errors import DdnnError
from ddnn.runtime.loop import Loop
from ddnn.runtime.sections import IDLE_RUN_S

log = logging.getLogger(__name__)

CHECK_S = 0.5
INFERRED_WITHIN_S = 3 * IDLE_RUN_S  # a process without an inference for longer is restarted


class Notifier(Protocol):
    """Reports to the supervisor of this process, such as systemd."""

    def ready(self) -> None: ...

    def watchdog(self) -> None:
        """Report that the process works; sends it as often as the supervisor expects it."""
        ...

    def stopping(self) -> None: ...


def find_ddnn_version() -> str:
    try:
        return version("ddnn")
    except PackageNotFoundError:
        return "0"


def has_inferred_lately(loop: Loop) -> bool:
    """Whether a section has run within INFERRED_WITHIN_S, on a frame or on its example."""
    last_s = loop.inferred_s
    return last_s is not None and time.monotonic() - last_s < INFERRED_WITHIN_S


def run_until_signal(loop: Loop, notifier: Notifier | None = None) -> None:
    """Run the loop until SIGINT or SIGTERM, which stop it cleanly; DdnnError where it fails."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    loop.start()
    log.info("%s is up", loop.identity.node)
    ready = False
    try:
        while not stop.wait(CHECK_S):
            if loop.failed is not None:
                raise DdnnError(f"{loop.identity.node}: the machine failed: {loop.failed}")
            if notifier is None or not has_inferred_lately(loop):
                continue
            if not ready and loop.link.connected:
                ready = True
                notifier.ready()
            notifier.watchdog()  # also without a broker: a restart would not bring it back
    finally:
        if notifier is not None:
            notifier.stopping()
        loop.close()
