"""Runs a loop as a program: until a signal asks for the end, or the machine fails."""

from __future__ import annotations

import logging
import signal
import threading
from importlib.metadata import PackageNotFoundError, version

from ddnn.errors import DdnnError
from ddnn.runtime.loop import Loop

log = logging.getLogger(__name__)


def ddnn_version() -> str:
    try:
        return version("ddnn")
    except PackageNotFoundError:
        return "0"


def run_until_signal(loop: Loop) -> None:
    """Start the loop; SIGINT and SIGTERM end it cleanly. Raises what the machine failed with."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    loop.start()
    log.info("%s is up", loop.identity.node)
    try:
        while not stop.wait(0.5):
            if loop.failed is not None:
                raise DdnnError(f"{loop.identity.node}: the machine failed: {loop.failed}")
    finally:
        loop.close()
