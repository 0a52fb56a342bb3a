"""Checks what the broker can do: retained messages through wildcards, shared subscriptions."""

from __future__ import annotations

import secrets
import time

from ddnn.cli.doctor.broker import BrokerConnection
from ddnn.cli.doctor.check import Finding
from ddnn.cli.doctor.node import ExaminedNode
from ddnn.protocol import topics
from ddnn.runtime.transport import Arrived

DELIVERY_S = 2.0


def check_capabilities(node: ExaminedNode, connection: BrokerConnection) -> Finding:
    """Check what only some brokers do, and what a node relies on.

    Presence is retained, and read through wildcards; it is repeated with the statistics. Clouds of
    one --share group divide the messages by shared subscriptions; a broker may grant these and
    deliver nothing.
    """
    settings = node.settings
    # First the share: the subscription with a wildcard gets its message, too.
    served = not node.share or _is_share_served(settings.site, settings.node, connection)
    took_s = _measure_retained(settings.site, settings.node, connection)
    if took_s is None:
        return Finding.warning(
            "the broker does not deliver retained messages to subscriptions with wildcards: a node "
            "that connects learns of others with their next statistics, after --stats-every-s",
            "use a broker that does, such as Mosquitto, NATS or ejabberd",
        )
    words = [f"retained messages through wildcards after {1e3 * took_s:.1f} ms"]
    limit = connection.transport.max_packet_bytes
    words.append(f"packets of at most {limit} bytes" if limit else "no limit of packets announced")
    if not served:
        return Finding.warning(
            f"the broker grants the shared subscription of --share {node.share}, and delivers "
            "nothing to it",
            "leave --share out: every cloud then gets all messages; or use a broker that divides "
            "them, such as Mosquitto",
        )
    if node.share:
        words.append("shared subscriptions")
    return Finding.ok("; ".join(words))


def _measure_retained(site: str, node: str, connection: BrokerConnection) -> float | None:
    """How long after a subscription with a wildcard a retained message arrives; None: never."""
    name = secrets.token_hex(8)
    topic, every = topics.probe(site, node, name), topics.probe(site, node, "+")
    transport = connection.transport
    transport.publish(topic, topics.PROBE, 1, True)
    started_s = time.monotonic()
    transport.subscribe([every])
    arrived = connection.wait_for(lambda event: event == Arrived(topic, topics.PROBE), DELIVERY_S)
    took_s = time.monotonic() - started_s
    transport.publish(topic, b"", 1, True)  # which deletes it
    return None if arrived is None else took_s


def _is_share_served(site: str, node: str, connection: BrokerConnection) -> bool:
    """Whether a shared subscription gets a message."""
    name = secrets.token_hex(8)
    topic = topics.probe(site, node, name)
    transport = connection.transport
    transport.subscribe([topics.share_filter(topic, f"doctor-{name}")])
    transport.publish(topic, topics.PROBE, 1, False)
    arrived = connection.wait_for(lambda event: event == Arrived(topic, topics.PROBE), DELIVERY_S)
    return arrived is not None
