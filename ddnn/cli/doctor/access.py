"""Checks that the broker's access list lets the node use every kind of topic that its role uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ddnn.cli.doctor.broker import BrokerConnection
from ddnn.cli.doctor.check import Finding
from ddnn.cli.doctor.node import ExaminedNode
from ddnn.errors import LinkError
from ddnn.exits.hierarchy import CLOUD, Hierarchy
from ddnn.protocol import topics
from ddnn.protocol.access import Role, list_filters
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.transport import Arrived, LinkEvent, Refused

ECHO_S = 3.0
TRAFFIC_S = 3.0  # how long to listen to what others publish


def check_access(node: ExaminedNode, connection: BrokerConnection) -> Finding:
    """Check what the node may publish and read.

    Every topic is subscribed to, and gets a probe that nodes pass over. In MQTT 5 the broker says
    which probe it refuses; one that it takes must come back. What this user may not publish is read
    only if others publish there meanwhile.
    """
    settings = node.settings
    if node.app is None or not settings.bundle:
        return Finding.skipped("the node's role is not known", "name it with --node and --bundle")
    if settings.site == EVERYWHERE:
        return Finding.skipped(f"the site {EVERYWHERE!r} has no topics of its own")
    hierarchy = read_manifest(Path(settings.bundle))[0].hierarchy
    role: Role = "worker" if node.is_worker else node.app
    published, read = list_topics(role, settings.site, settings.node, hierarchy)
    events = _try_topics(settings.node, settings.site, connection, published, read)
    arrived = {event.topic for event in events if isinstance(event, Arrived)}
    refused = {(e.action, e.topic): e.reason for e in events if isinstance(e, Refused)}
    no_publish = [topic for topic in published if ("publish", topic) in refused]
    no_read = [
        topic
        for topic in read
        if topic not in arrived
        and (
            ("subscribe", topic) in refused
            or (connection.version == "5" and ("publish", topic) not in refused)
        )
    ]
    unknown = [topic for topic in read if topic not in arrived and topic not in no_read]
    if connection.version != "5":  # refuses nothing: what came back was published
        unknown += [topic for topic in published if topic not in arrived and topic not in read]
    remedy = f"extend the access list of user {settings.broker_user or 'anonymous'} at the broker"
    if no_publish or no_read:
        denied = [f"publish {topic}" for topic in no_publish] + [f"read {t}" for t in no_read]
        return Finding.failed(f"it may not {', '.join(denied)}", remedy, LinkError)
    message = f"it may publish {len(published)} kinds of topics and read {len(read)}"
    if unknown:  # with rights per node nobody but another node may publish there
        message += f"; nothing came meanwhile on {', '.join(unknown)}"
    return Finding.ok(message)


def list_topics(
    role: Role, site: str, node: str, hierarchy: Hierarchy
) -> tuple[list[str], list[str]]:
    """One topic for each right to publish, and for each right to read."""
    nodes: dict[Role, Sequence[str]] = {
        "device": hierarchy.devices[:1],
        "edge": [hierarchy.lead],
        "cloud": [CLOUD],
    }
    filters = list_filters([role], site, node, nodes)

    def choose(texts: Iterable[str]) -> list[str]:
        topics = [text.replace("+", hierarchy.lead) for text in texts]
        return [topic for topic in topics if "/probe/" not in topic]

    return choose(filters.write), choose(filters.read)


def _try_topics(
    node: str,
    site: str,
    connection: BrokerConnection,
    published: Iterable[str],
    read: Iterable[str],
) -> list[LinkEvent]:
    """Subscribe to all topics, publish a probe on each, and return what the broker does."""
    events: list[LinkEvent] = []
    wanted = [*dict.fromkeys([*published, *read])]
    transport = connection.transport
    transport.subscribe(wanted)
    for topic in wanted:
        transport.publish(topic, connection.find_status_payload(topic) or topics.PROBE, 1, False)
    last = topics.probe(site, node, "access")
    transport.subscribe([last])
    transport.publish(last, topics.PROBE, 1, False)

    def is_last(event: LinkEvent) -> bool:
        events.append(event)
        return event == Arrived(last, topics.PROBE)

    connection.wait_for(is_last, ECHO_S)

    def is_enough(event: LinkEvent) -> bool:
        events.append(event)
        return set(read) <= {e.topic for e in events if isinstance(e, Arrived)}

    if not set(read) <= {event.topic for event in events if isinstance(event, Arrived)}:
        connection.wait_for(is_enough, TRAFFIC_S)
    return events
