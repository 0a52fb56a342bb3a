"""Runs a loop as a program, until a signal ends it or the machine fails."""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections.abc import Callable
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

    def notify_ready(self) -> None: ...

    def watchdog(self) -> None:
        """Report that the process works; sends it as often as the supervisor expects it."""
        ...

    def notify_stopping(self) -> None: ...


def find_ddnn_version() -> str:
    try:
        return version("ddnn")
    except PackageNotFoundError:
        return "0"


def has_inferred_lately(loop: Loop) -> bool:
    """Whether a section has run within INFERRED_WITHIN_S, on a frame or on its example; of a node
    that holds none now, whether its machine works."""
    if not loop.has_sections:
        return is_working(loop)
    last_s = loop.inferred_s
    return last_s is not None and time.monotonic() - last_s < INFERRED_WITHIN_S


def is_working(loop: Loop) -> bool:
    """Whether the machine's thread works: for a node that has no section to run."""
    return loop.failed is None


def run_until_signal(
    loop: Loop,
    notifier: Notifier | None = None,
    is_well: Callable[[Loop], bool] = has_inferred_lately,
    prepare_stop: Callable[[], None] | None = None,
) -> None:
    """Run the loop until SIGINT or SIGTERM, which stop it cleanly; DdnnError where it fails.

    is_well: what the notifier reports. prepare_stop: called before the loop is closed by a signal.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # What was loaded until now stays: the garbage collector need not look through it again, which
    # would hold up samples for a tenth of a second.
    gc.collect()
    gc.freeze()
    loop.start()
    log.info("%s is up", loop.identity.node)
    ready = False
    try:
        while not stop.wait(CHECK_S):
            if isinstance(loop.failed, DdnnError):
                raise loop.failed
            if loop.failed is not None:
                raise DdnnError(f"{loop.identity.node}: the machine failed: {loop.failed}")
            if notifier is None or not is_well(loop):
                continue
            if not ready and loop.link.connected:
                ready = True
                notifier.notify_ready()
            notifier.watchdog()  # also without a broker: a restart would not bring it back
        if prepare_stop is not None:
            prepare_stop()
    finally:
        if notifier is not None:
            notifier.notify_stopping()
        loop.close()
