"""What commands that look at a node read: the keys that all nodes have, from the same places."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ddnn.adapters.command import read_config
from ddnn.adapters.mqtt import MqttTransport
from ddnn.protocol.topics import probe
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.transport import LinkEvent

NOBODY = "nobody"
SHOWN_CHARS = 24


class AnyNode(NodeSettings, frozen=True, kw_only=True):
    """The common keys; node and bundle may be left out."""

    node: Annotated[str, msgspec.Meta(description="Id of the node, as in the bundle.")] = NOBODY
    bundle: Annotated[str, msgspec.Meta(description="Directory of the bundle it runs.")] = ""

    def _check_site(self) -> None:
        """A cloud's site may be every site."""

    @property
    def broker(self) -> str:
        return f"{self.broker_host}:{self.broker_port}"


def read_any_node(flags: Mapping[str, Any], file: str | Path | None) -> AnyNode:
    """The common keys of a node's flags, environment and file; ConfigError as the node's own."""
    given = {key: value for key, value in flags.items() if value is not None}
    return read_config(AnyNode, given, os.environ, file, others=True)


def shown(text: str) -> str:
    """What a peer says of itself, fit for a terminal: short, and no control sequences."""
    return "".join(c if c.isprintable() else "?" for c in text[:SHOWN_CHARS])


def visitor(
    settings: AnyNode, sink: Callable[[LinkEvent], None], version: str | None = None
) -> MqttTransport:
    """A connection with the node's rights and a name of its own, so that the node, which may be
    running, keeps its connection. Nobody hears its Last Will."""
    name = f"visitor-{secrets.token_hex(4)}"
    transport = MqttTransport.of(settings, name, version or "")
    transport.start(sink, lambda session: (probe(settings.site, settings.node, name), b""))
    return transport
