"""An observer: a command that reads a site's messages with the settings and rights of a node."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec

from ddnn.adapters.command import read_config, schema_options
from ddnn.adapters.mqtt import MqttTransport
from ddnn.protocol.topics import probe
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.transport import LinkEvent

UNNAMED_NODE = "nobody"
SITE_KEYS = (
    "site",
    "broker_host",
    "broker_port",
    "site_file",
    "site_passphrase_file",
    "insecure",
    "broker_user",
    "broker_password_file",
    "mqtt",
    "config",
)
CONNECT_S = 6.0  # for each address of the broker
TRIES_OF_ADDRESS = 2  # MQTT 5, then 3.1.1
MAX_PRINTED_CHARS = 24
MAX_REASON_CHARS = 500


class ObserverSettings(NodeSettings, frozen=True, kw_only=True):
    """The keys that the nodes of every app have; node and bundle may be left out."""

    node: Annotated[str, msgspec.Meta(description="Id of the node, as in the bundle.")] = (
        UNNAMED_NODE
    )
    bundle: Annotated[str, msgspec.Meta(description="Directory of the bundle it runs.")] = ""

    def _check_site(self) -> None:
        """Accept the word for every site, which a cloud node may have."""

    def _check_security(self) -> None:
        """Accept a connection without TLS: it reads only."""

    @property
    def broker(self) -> str:
        """host:port, or several with commas"""
        return ",".join(map(str, self.brokers))


def read_observer_settings(flags: Mapping[str, Any], file: str | Path | None) -> ObserverSettings:
    """The settings from flags, environment and file; raises the ConfigError of the node's app."""
    given = {key: value for key, value in flags.items() if value is not None}
    return read_config(ObserverSettings, given, os.environ, file, others=True)


def list_site_options() -> list[click.Parameter]:
    """The options of a command that needs a site and its broker only."""
    return [option for option in schema_options(ObserverSettings) if option.name in SITE_KEYS]


def start_observer(
    settings: ObserverSettings, sink: Callable[[LinkEvent], None], version: str | None = None
) -> MqttTransport:
    """Connect with the node's rights under another client id: a node that runs keeps its own
    connection. The Last Will goes to a topic to which no machine subscribes."""
    name = f"observer-{secrets.token_hex(4)}"
    transport = MqttTransport.of(settings, name, version or "")
    transport.start(sink, lambda session: (probe(settings.site, settings.node, name), b""))
    return transport


def limit_connecting(settings: ObserverSettings) -> tuple[int, float]:
    """How many tries, and until when (monotonic), a command has to reach any of the addresses."""
    addresses = len(settings.brokers)
    return TRIES_OF_ADDRESS * addresses, time.monotonic() + CONNECT_S * addresses


def make_printable(text: str, most: int = MAX_PRINTED_CHARS) -> str:
    """A peer's text for a terminal: of so many characters at most, without control sequences."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def make_printable_reason(text: str) -> str:
    """The same for a sentence, such as why a node refuses."""
    return make_printable(text, MAX_REASON_CHARS)
