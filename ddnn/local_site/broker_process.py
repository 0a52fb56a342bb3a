"""The broker as a process of this machine."""

from __future__ import annotations

from pathlib import Path

from ddnn.adapters import broker as brokers
from ddnn.errors import ConfigError, LinkError
from ddnn.runtime.fleet import Fleet

BROKER = "broker"
OWN_BROKER = {
    "DDNN_BROKER_HOST": "127.0.0.1",
    "DDNN_BROKER_USER": "",
    "DDNN_BROKER_PASSWORD_FILE": "",
    "DDNN_SITE_FILE": "",
    "DDNN_SITE_PASSPHRASE_FILE": "",
}
"""Variables of the processes of a local site: those of the user name the broker of another one."""


def start_broker(fleet: Fleet, kind: brokers.Kind, port: int, state: Path) -> None:
    """Start the broker; returns once it listens.

    Raises ConfigError where another program listens on the port, LinkError where the broker does
    not start.
    """
    if not brokers.is_free(port):
        raise ConfigError(
            f"port {port} is in use, perhaps by another broker; give another --broker-port"
        )
    fleet.start(BROKER, brokers.command(kind, port, state))
    try:
        brokers.wait_until_listening(port)
    except LinkError:
        raise LinkError(f"the broker did not start: {fleet.read_last_line(BROKER)}") from None
