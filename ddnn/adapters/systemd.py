"""What a service says to systemd: ready, alive, stopping (the protocol of sd_notify)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

EXTEND_US = 30_000_000  # a start that goes on says so within this, or has failed
log = logging.getLogger(__name__)


class Notifier:
    """Sends datagrams to $NOTIFY_SOCKET; does nothing where there is none.

    A service manager that is away or slow never stops the node: what cannot be sent is dropped.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        if path and path[0] not in "/@":
            log.warning("NOTIFY_SOCKET %r is no path and no abstract name: ignored", path)
            path = ""
        # a leading @ stands for the zero byte of the abstract namespace
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._timeout_s = _watchdog_s(environ) if path else None
        self._ready = False

    def watchdog_every_s(self) -> float | None:
        """How often to call `watchdog`: half of WatchdogSec. None: systemd does not watch us."""
        return None if self._timeout_s is None else self._timeout_s / 2

    def notify_ready(self) -> None:
        self._ready = True
        self._send("READY=1")

    def watchdog(self) -> None:
        """This process works. Until it is ready, that is a reason to wait for it longer."""
        self._send("WATCHDOG=1" if self._ready else f"EXTEND_TIMEOUT_USEC={EXTEND_US}")

    def notify_stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.connect(self._address)
                sender.send(message.encode())
        except OSError as error:
            log.debug("not sent to systemd: %s: %s", message, error)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, if it is meant for this process (WATCHDOG_PID, where it is set)."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not usec.isdecimal() or not int(usec) or (pid is not None and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
