"""Checks the connection to the broker: name, TCP, MQTT, and the round trip of a message."""

from __future__ import annotations

import functools
import operator
import secrets
import socket
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ddnn.adapters.mqtt import MqttTransport
from ddnn.cli.doctor.check import Finding
from ddnn.cli.doctor.security import check_broker_certificate
from ddnn.cli.observer import UNNAMED_NODE, ObserverSettings, start_observer
from ddnn.errors import LinkError, RemoteProtocolError
from ddnn.protocol import topics
from ddnn.protocol.codec import decode_arrived
from ddnn.protocol.messages import Status
from ddnn.runtime.site_identity import Broker, parse_broker
from ddnn.runtime.state_lock import read_instance
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

TCP_S = 5.0
MQTT_S = 4.0  # for each version of MQTT that is tried
ECHO_S = 3.0
ROUNDS = 10
VERSIONS = {"auto": ("5", "3.1.1"), "5": ("5",), "3.1.1": ("3.1.1",)}


class BrokerConnection:
    """A connection to the site's broker, and the node statuses that it delivered."""

    def __init__(self) -> None:
        self.tcp_connect_s = 0.0
        self.version = ""  # of MQTT
        self._statuses: dict[str, Status] = {}
        self._payloads: dict[str, bytes] = {}  # of statuses, by topic
        self._events: deque[LinkEvent] = deque()
        self._transport: MqttTransport | None = None

    @property
    def transport(self) -> MqttTransport:
        """Raises LinkError where there is no connection."""
        if self._transport is None:
            raise LinkError("no connection to the broker")
        return self._transport

    @property
    def online(self) -> dict[str, Status]:
        """The nodes that are announced as online, by id; the examined node too if it runs."""
        return {
            node: status
            for node, status in sorted(self._statuses.items())
            if status.state == "online"
        }

    def find_status_payload(self, topic: str) -> bytes | None:
        """What was announced on a topic of a status: it may be published again unchanged."""
        return self._payloads.get(topic)

    def open(self, settings: ObserverSettings, version: str) -> str:
        """Connect with one version of MQTT; return why there is no connection, or an empty text."""
        self._events.clear()
        self._transport = start_observer(settings, self._events.append, version)
        reason = "did not answer"
        for broker in settings.brokers:  # each failure is followed by an attempt at the next one
            event = self.wait_for(lambda event: isinstance(event, LinkUp | LinkDown), MQTT_S)
            if isinstance(event, LinkUp):
                self.version = version
                return ""
            if isinstance(event, LinkDown):
                reason = event.reason.removeprefix(str(broker)).strip() or "closed the connection"
        self.close()
        return reason

    def wait_for(self, is_wanted: Callable[[LinkEvent], bool], within_s: float) -> LinkEvent | None:
        """The first wanted event, or None; the statuses that come before it are kept."""
        transport, deadline_s = self.transport, time.monotonic() + within_s
        while True:
            while self._events:
                event = self._events.popleft()
                self._keep_status(event)
                if is_wanted(event):
                    return event
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return None
            transport.wait(left_s)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _keep_status(self, event: LinkEvent) -> None:
        if not isinstance(event, Arrived):
            return
        try:
            topic, message = decode_arrived(event.topic, event.payload)
        except RemoteProtocolError:
            return
        if isinstance(message, Status):
            self._statuses[topic.node] = message
            self._payloads[event.topic] = event.payload


def check_name(settings: ObserverSettings) -> Finding:
    """Check that the names of the broker's hosts can be resolved."""
    return _combine([_check_name(broker) for broker in settings.brokers])


def check_tcp(settings: ObserverSettings, connection: BrokerConnection) -> Finding:
    """Check that the broker's addresses accept connections."""
    return _combine([_check_tcp(broker, connection) for broker in settings.brokers])


def _combine(findings: Sequence[Finding]) -> Finding:
    """One finding of those of all addresses: no failure where one of them is good."""
    wrong = [finding for finding in findings if finding.outcome != "ok"]
    if not wrong:
        return Finding.ok("; ".join(finding.message for finding in findings))
    if len(wrong) == len(findings):
        return wrong[0]
    return Finding.warning(
        "; ".join(finding.message for finding in wrong) + "; another address works", wrong[0].remedy
    )


def _check_name(broker: Broker) -> Finding:
    host = broker.host
    started_s = time.monotonic()
    try:
        found = socket.getaddrinfo(host, broker.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Finding.failed(
            f"the name {host!r} cannot be resolved: {reason}",
            "correct --broker-host or this machine's DNS; an address such as 192.168.1.10 "
            "needs no DNS",
            LinkError,
        )
    took_s = time.monotonic() - started_s
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return Finding.ok(f"{host} resolves to {', '.join(addresses)} ({1e3 * took_s:.1f} ms)")


def _check_tcp(broker: Broker, connection: BrokerConnection) -> Finding:
    started_s = time.monotonic()
    try:
        socket.create_connection((broker.host, broker.port), TCP_S).close()
    except ConnectionRefusedError:
        problem = f"nothing listens on {broker}: connection refused"
        remedy = (
            "start the broker there (systemctl status mosquitto), let it listen on more than "
            "loopback, or correct --broker-port"
        )
        return Finding.failed(problem, remedy, LinkError)
    except TimeoutError:
        problem = f"{broker} does not answer within {TCP_S:.0f} s"
        remedy = "check that it is on, and that its firewall lets the port through"
        return Finding.failed(problem, remedy, LinkError)
    except OSError as error:
        problem = f"{broker} cannot be reached: {error.strerror or error}"
        remedy = "check this machine's network: cable, address, route"
        return Finding.failed(problem, remedy, LinkError)
    connection.tcp_connect_s = time.monotonic() - started_s
    return Finding.ok(f"{broker} accepts connections ({1e3 * connection.tcp_connect_s:.1f} ms)")


def check_mqtt(settings: ObserverSettings, connection: BrokerConnection) -> Finding:
    """Check that the broker speaks MQTT and accepts the user."""
    reason = ""
    for version in VERSIONS[settings.mqtt]:
        reason = connection.open(settings, version)
        if not reason:
            if settings.site_file:
                broker = parse_broker(connection.transport.broker)
                return check_broker_certificate(settings, version, broker)
            user = f"user {settings.broker_user}" if settings.broker_user else "anonymous"
            return Finding.ok(f"MQTT {version} as {user}")
        if _is_unauthorized(reason):
            break  # the broker speaks this version, and refuses the user
    return Finding.failed(f"the broker {reason}", _find_mqtt_remedy(settings, reason), LinkError)


def check_node_name(settings: ObserverSettings, connection: BrokerConnection) -> Finding:
    """Check that no other process uses the node's name."""
    node = settings.node
    if node == UNNAMED_NODE:
        return Finding.skipped("no node is named", "name it with --node")
    status = connection.online.get(node)
    if status is None:
        return Finding.ok(f"no other process is online as {node}")
    if status.instance in (0, read_instance(Path(settings.state), node)):
        return Finding.ok(f"{node} is online, with this state directory")
    return Finding.failed(
        f"another process is online as {node} of site {settings.site}, not with the state "
        f"directory {settings.state}: two nodes cannot have one name",
        "give one of them another --node; if the node of this state directory is the one that "
        "runs, name its directory by --state",
    )


def check_round_trip(settings: ObserverSettings, connection: BrokerConnection) -> Finding:
    """Check that the broker delivers to the node what the node publishes, and how fast."""
    nonce = secrets.token_hex(8)
    topic = topics.probe(settings.site, settings.node, nonce)
    transport = connection.transport
    transport.subscribe([topic, *topics.presence_filters(settings.site)])
    rounds_s: list[float] = []
    for number in range(ROUNDS):
        payload = f"{nonce} {number}".encode()
        started_s = time.monotonic()
        transport.publish(topic, payload, 1, False)
        is_echo = functools.partial(operator.eq, Arrived(topic, payload))
        if connection.wait_for(is_echo, ECHO_S) is None:
            return Finding.failed(
                f"what was published on {topic} did not come back within {ECHO_S:.0f} s",
                "the broker's access list may forbid it: let this node read and write "
                f"{topics.ROOT}/{settings.site}/#",
                LinkError,
            )
        rounds_s.append(time.monotonic() - started_s)
    p50_s = statistics.median(rounds_s)
    online = ", ".join(connection.online)
    message = (
        f"p50 {1e3 * p50_s:.2f} ms of {ROUNDS} at QoS 1, where a TCP connect takes "
        f"{1e3 * connection.tcp_connect_s:.2f} ms; "
        + (f"online: {online}" if online else "no node is online at this site")
    )
    if p50_s <= settings.window_s / 2:
        return Finding.ok(message)
    remedy = (
        f"a stage waits {1e3 * settings.window_s:.0f} ms for members: improve the network, or "
        "raise --window-s and --deadline-s on every node"
    )
    return Finding.warning(message, remedy)


def _find_mqtt_remedy(settings: ObserverSettings, reason: str) -> str:
    if "certificate" in reason:
        return (
            "`ddnn site list` names the nodes and their certificates: add the node again if it was "
            "revoked or has expired (--renew), or take the file of this broker's site; a broker "
            "whose name is not accepted needs it in `ddnn site init --broker`"
        )
    if _is_unauthorized(reason) and not settings.broker_user:
        return "the broker requires a user: set --broker-user and --broker-password-file"
    if _is_unauthorized(reason):
        return (
            f"correct --broker-user {settings.broker_user} or its password file; "
            "mosquitto_passwd sets a password at the broker"
        )
    if "refused" in reason:
        return "read the broker's log; an old broker may need --mqtt 3.1.1"
    return "the program that listens there hangs or is no MQTT broker: correct --broker-port"


def _is_unauthorized(reason: str) -> bool:
    return any(word in reason.lower() for word in ("authorized", "password", "banned"))
