"""`ddnn health`: asks the broker whether a node works, for health checks of containers."""

from __future__ import annotations

import threading

import click

from ddnn.adapters.command import app_command
from ddnn.adapters.driven_transport import DrivenTransport
from ddnn.adapters.mqtt import MqttTransport
from ddnn.errors import LinkError, RemoteProtocolError
from ddnn.protocol import topics
from ddnn.protocol.codec import decode_arrived
from ddnn.protocol.messages import Stats, Status
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

MISSED_STATS = 2.5  # intervals without statistics after which a node counts as dead

DESCRIPTION = """Ask the broker whether a node works: exit code 0 if it does, 8 if not.

A node works if it is announced as online and its machine's thread still sends statistics, every
--stats-every-s. Takes the flags and the environment of the node itself.

\b
Example:
  ddnn health --node edge --bundle bundle
"""


class HealthSettings(NodeSettings, frozen=True, kw_only=True):
    """The node's own keys."""

    def _check_site(self) -> None:
        """Accept the word for every site, which a cloud node may have."""

    def _check_security(self) -> None:
        """Accept a connection without TLS: it reads only."""


def check_health(settings: HealthSettings) -> None:
    """Return once the node is online and sends statistics; LinkError names what is missing."""
    site, node = settings.site, settings.node
    latest: dict[type, object] = {}  # the latest message, or LinkDown, by type
    is_healthy = threading.Event()

    def sink(event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            transport.subscribe([topic_filter(k, site, node) for k in (Kind.STATUS, Kind.STATS)])
        elif isinstance(event, LinkDown):
            latest[LinkDown] = event
        elif isinstance(event, Arrived):
            try:
                _, message = decode_arrived(event.topic, event.payload)
            except RemoteProtocolError:
                return
            latest[type(message)] = message
            status = latest.get(Status)
            if Stats in latest and isinstance(status, Status) and status.state == "online":
                is_healthy.set()

    transport = DrivenTransport(MqttTransport.of(settings, f"{node[:57]}-health"))
    wait_s = MISSED_STATS * settings.stats_every_s
    transport.start(sink, lambda _session: (topics.probe(site, node, "health"), b""))
    try:
        if not is_healthy.wait(wait_s):
            raise LinkError(f"{site}/{node}: {_describe_missing(latest, wait_s)}")
    finally:
        transport.close()
    click.echo(f"{site}/{node} is online and works")


def _describe_missing(latest: dict[type, object], wait_s: float) -> str:
    down, status = latest.get(LinkDown), latest.get(Status)
    if isinstance(down, LinkDown):
        return f"no connection to the broker: {down.reason}"
    if not isinstance(status, Status):
        return "it was never announced at this broker"
    if status.state != "online":
        return f"it is {status.state}"
    return f"it is announced as online, but sent no statistics within {wait_s:.0f} s"


health = app_command(HealthSettings, check_health, name="health", description=DESCRIPTION)
