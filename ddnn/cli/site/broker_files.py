"""The files of a site's broker: Mosquitto's configuration and its access list."""

from __future__ import annotations

from pathlib import PurePosixPath

from ddnn.cli.site.record import SiteRecord
from ddnn.protocol.access import TABLE, list_filters
from ddnn.protocol.messages import MAX_MESSAGE_BYTES
from ddnn.protocol.topics import EVERYWHERE, ROOT, Kind, topic_filter

CONFIGURATION, ACCESS = "mosquitto.conf", "access"
CA, CERTIFICATE, KEY, REVOKED = "ca.crt", "broker.crt", "broker.key", "revoked.pem"
BRIDGE_CA, BRIDGE_CERTIFICATE, BRIDGE_KEY = "bridge-ca.crt", "bridge.crt", "bridge.key"

HEAD = """\
# Written by `ddnn site`; the next change of the site replaces it.
# The broker of the site {site}: TLS with certificates of the site only, and rights per node.
per_listener_settings true

listener {port}
cafile {at}/{ca}
certfile {at}/{certificate}
keyfile {at}/{key}
crlfile {at}/{revoked}
tls_version tlsv1.2
require_certificate true
# The name in a node's certificate is its user name; the access list says what it may do.
use_identity_as_username true
allow_anonymous false
acl_file {at}/{access}

# Limits: MAX_MESSAGE_BYTES of ddnn.protocol.messages, and a bounded queue per client. Data that is
# late has no value, so it is not queued for clients that are offline.
message_size_limit {limit}
max_inflight_messages {inflight}
max_queued_messages 10000
max_queued_bytes 268435456
queue_qos0_messages false
max_keepalive 60
set_tcp_nodelay true

# Retained commands (thresholds) and presence survive a restart.
persistence true
persistence_location {data}
autosave_interval 60

log_dest stderr
log_timestamp_format %Y-%m-%dT%H:%M:%S
log_type error
log_type warning
log_type notice
connection_messages true
"""

BRIDGE = """
# The bridge to the cloud's broker. Scores, features and escalations stay on the LAN. No topic is
# bridged in both directions, and no session is kept: nodes send again what is not confirmed.
connection {site}
address {address}
remote_clientid bridge-{site}
bridge_cafile {at}/{ca}
bridge_certfile {at}/{certificate}
bridge_keyfile {at}/{key}
bridge_tls_version tlsv1.2
bridge_protocol_version mqttv50
start_type automatic
restart_timeout 1 10
keepalive_interval 10
cleansession true
notifications true
notifications_local_only true
bridge_attempt_unsubscribe false
{topics}
"""


def format_configuration(record: SiteRecord, data: str = "/var/lib/mosquitto/") -> str:
    """Mosquitto's configuration. data: its directory of retained messages."""
    at = PurePosixPath(record.installed_at)
    text = HEAD.format(
        site=record.site,
        port=record.brokers[0].port,
        at=at,
        ca=CA,
        certificate=CERTIFICATE,
        key=KEY,
        revoked=REVOKED,
        access=ACCESS,
        limit=MAX_MESSAGE_BYTES,
        inflight=1000 if record.site == EVERYWHERE else 100,
        data=data,
    )
    if record.bridge is None:
        return text
    return text + BRIDGE.format(
        site=record.site,
        address=record.bridge.broker,
        at=at,
        ca=BRIDGE_CA,
        certificate=BRIDGE_CERTIFICATE,
        key=BRIDGE_KEY,
        topics="\n".join(list_bridge_lines(record.site)),
    )


def list_bridge_lines(site: str) -> list[str]:
    """The topics that cross the bridge, from the rights of the role `bridge`."""
    ways = (("out", TABLE["bridge"].write), ("in", TABLE["bridge"].read))
    lines = [_format_bridge_line(right.kind, way, site) for way, rights in ways for right in rights]
    return [*lines, _format_bridge_line(Kind.STATUS, "in", EVERYWHERE)]


def _format_bridge_line(kind: Kind, way: str, site: str) -> str:
    prefix = f"{ROOT}/{site}/"
    pattern = topic_filter(kind, site).removeprefix(prefix)
    return f"topic {pattern} {way} {kind.value.qos} {prefix} {prefix}"


def format_access(record: SiteRecord) -> str:
    """Mosquitto's access list: each node that is not revoked, with its rights. Others have none."""
    lines = ["# Written by `ddnn site`: what each node writes and reads, by its roles."]
    nodes = record.list_nodes_by_role()
    for node in record.nodes:
        if node.revoked:
            continue
        filters = list_filters(
            node.roles, record.site, node.node, nodes, is_bridged=record.bridge is not None
        )
        lines += ["", f"# {', '.join(node.roles)}", f"user {node.node}"]
        lines += [f"topic write {text}" for text in filters.write]
        lines += [f"topic read {text}" for text in filters.read]
        if record.home_assistant and "edge" in node.roles:
            lines.append(f"topic write {record.home_assistant}/+/ddnn-{record.site}/+/config")
        if record.home_assistant and "observer" in node.roles:
            lines.append(f"topic read {record.home_assistant}/+/ddnn-{record.site}/+/config")
    return "\n".join(lines) + "\n"
