"""Checks the node's site file, and whether it has refused commands."""

from __future__ import annotations

import socket
import ssl
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ddnn.adapters.joined import check_site_file, read_joined
from ddnn.cli.doctor.check import Finding
from ddnn.cli.observer import ObserverSettings
from ddnn.errors import RemoteProtocolError
from ddnn.protocol.codec import decode_arrived
from ddnn.protocol.commands import REFUSALS
from ddnn.protocol.messages import Stats
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.guard import DAY_S, EXPIRES_SOON_DAYS
from ddnn.runtime.settings import is_loopback
from ddnn.runtime.site_identity import Broker
from ddnn.runtime.transport import Arrived, LinkEvent

if TYPE_CHECKING:
    from ddnn.cli.doctor.broker import BrokerConnection

READABLE = stat.S_IRGRP | stat.S_IROTH
TLS_S = 3.0
COMMANDS_S = 9.0  # the most that `check_commands` takes


def check_security(settings: ObserverSettings) -> Finding:
    """Check the site file: its certificate, its keys, and who may read it."""
    if not settings.site_file:
        if all(is_loopback(broker.host) for broker in settings.brokers):
            return Finding.ok("no site file; the broker is on this machine")
        return Finding.warning(
            f"no site file: anyone between this node and {settings.broker} can read and forge "
            "the messages",
            f"ddnn site add-node {settings.node}, and give its file by --site-file",
        )
    summary = check_site_file(settings)
    if Path(settings.site_file).stat().st_mode & READABLE:
        return Finding.warning(
            f"{summary}; but other users of this machine may read {settings.site_file}",
            f"chmod 600 {settings.site_file}",
        )
    if read_joined(settings).make_guard(None).gauges["certificate_days"] < EXPIRES_SOON_DAYS:
        return Finding.warning(
            summary, f"ddnn site add-node {settings.node} --renew, and carry the new file here"
        )
    return Finding.ok(summary)


def check_broker_certificate(settings: ObserverSettings, version: str, broker: Broker) -> Finding:
    """Report a connection over TLS, and a certificate of the broker that expires soon."""
    context = read_joined(settings).make_context()
    with (
        socket.create_connection((broker.host, broker.port), TLS_S) as plain,
        context.wrap_socket(plain, server_hostname=broker.host) as link,
    ):
        expires = (link.getpeercert() or {}).get("notAfter", "")
    days = (ssl.cert_time_to_seconds(str(expires)) - time.time()) / DAY_S
    message = (
        f"MQTT {version} over TLS as {settings.node}; the broker's certificate is valid for "
        f"{days:.0f} days"
    )
    if days < EXPIRES_SOON_DAYS:
        return Finding.warning(message, "ddnn site renew-broker, and give its files to the broker")
    return Finding.ok(message)


def check_commands(settings: ObserverSettings, connection: BrokerConnection) -> Finding:
    """Check that the node, if it runs, has refused no command."""
    node = settings.node
    if node not in connection.online:
        return Finding.ok(f"{node} does not run: it has refused no command")
    own = topic_filter(Kind.STATS, settings.site, node)

    def is_stats(event: LinkEvent) -> bool:
        return isinstance(event, Arrived) and event.topic == own

    connection.transport.subscribe([own])
    found = connection.wait_for(is_stats, min(1.5 * settings.stats_every_s, COMMANDS_S - 1))
    stats = _read_stats(found)
    if stats is None:
        return Finding.ok(f"{node} has sent no statistics meanwhile")
    refused = [
        f"{stats.counts[name]} times: {text}"
        for name, text in REFUSALS.items()
        if stats.counts.get(name)
    ]
    if not refused:
        return Finding.ok(f"{node} has refused no command since its start")
    return Finding.warning(
        f"{node} has {'; '.join(refused)}",
        "find the sender in the broker's log, `ddnn site revoke` it, and clear the retained "
        "message; a sender of the site needs a site file with the role",
    )


def _read_stats(event: LinkEvent | None) -> Stats | None:
    if not isinstance(event, Arrived):
        return None
    try:
        _, message = decode_arrived(event.topic, event.payload)
    except RemoteProtocolError:
        return None
    return message if isinstance(message, Stats) else None
