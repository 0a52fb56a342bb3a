"""`ddnn health`: whether a node's machine lives, told by the broker. For health checks."""

from __future__ import annotations

import threading

import click

from ddnn.adapters.command import app_command
from ddnn.adapters.mqtt import DrivenTransport, MqttTransport
from ddnn.errors import LinkError, RemoteProtocolError
from ddnn.protocol import topics
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Stats, Status
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

MISSED_STATS = 2.5  # statistics that may be late or lost before a node counts as dead

DESCRIPTION = """Ask the broker whether a node lives: exit code 0 if it does, 8 if not.

It does if it is announced as online and its statistics, which its machine's own thread sends
every --stats-every-s, still come. Takes the flags and the environment of the node itself.

\b
Example:
  ddnn health --node edge --bundle bundle
"""


class HealthSettings(NodeSettings, frozen=True, kw_only=True):
    """The node's own keys."""

    def _check_site(self) -> None:
        """Every site is fine here."""


def check(settings: HealthSettings) -> None:
    """Return once the node is seen to live; LinkError says what was missing."""
    site, node = settings.site, settings.node
    seen: dict[type, object] = {}
    told = threading.Event()

    def sink(event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            transport.subscribe([topic_filter(k, site, node) for k in (Kind.STATUS, Kind.STATS)])
        elif isinstance(event, LinkDown):
            seen[LinkDown] = event
        elif isinstance(event, Arrived):
            try:
                message = decode(topics.parse(event.topic).kind, event.payload)
            except RemoteProtocolError:
                return
            seen[type(message)] = message
            status = seen.get(Status)
            if Stats in seen and isinstance(status, Status) and status.state == "online":
                told.set()

    transport = DrivenTransport(MqttTransport.of(settings, f"{node[:57]}-health"))
    wait_s = MISSED_STATS * settings.stats_every_s
    transport.start(sink, lambda _session: (topics.probe(site, node, "health"), b""))
    try:
        if not told.wait(wait_s):
            raise LinkError(f"{site}/{node}: {_missing(seen, wait_s)}")
    finally:
        transport.close()
    click.echo(f"{site}/{node} is online and at work")


def _missing(seen: dict[type, object], wait_s: float) -> str:
    down, status = seen.get(LinkDown), seen.get(Status)
    if isinstance(down, LinkDown):
        return f"no connection to the broker: {down.reason}"
    if not isinstance(status, Status):
        return "was never announced at this broker"
    if status.state != "online":
        return f"is {status.state}"
    return f"is announced as online, but sent no statistics within {wait_s:.0f} s"


health = app_command(HealthSettings, check, name="health", description=DESCRIPTION)
