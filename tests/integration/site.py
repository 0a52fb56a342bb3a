"""A Mosquitto of one's own, and a node that publishes what a test wants: for tests of commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ddnn.adapters.broker import free_port, wait_until_listening
from ddnn.protocol import topics
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.messages import Message, Status, TimeReply, TimeRequest
from ddnn.protocol.topics import PROBE, Kind, Topic
from ddnn.runtime.fleet import Fleet
from tests.parts import MOSQUITTO, need, need_mosquitto

IN_TIME_S = 20.0
USER, PASSWORD = "cam1", "correct horse 7f3a"


@contextmanager
def mosquitto(directory: Path, *lines: str, port: int | None = None) -> Iterator[int]:
    """A Mosquitto with these lines of configuration; its port."""
    need_mosquitto()
    port = port or free_port()
    conf = directory / "broker.conf"
    conf.write_text("\n".join([f"listener {port} 127.0.0.1", "user root", *lines]) + "\n")
    fleet = Fleet(directory / "broker-logs")
    fleet.start("broker", [str(MOSQUITTO), "-c", str(conf)])
    try:
        wait_until_listening(port)
        yield port
    finally:
        fleet.close()


def write_password(directory: Path) -> tuple[str, ...]:
    """Write the password file. Return configuration lines that admit only USER with PASSWORD."""
    passwords = shutil.which("mosquitto_passwd")
    need(passwords, "mosquitto_passwd is not installed (apt install mosquitto)")
    file = directory / "passwords"
    subprocess.run([str(passwords), "-b", "-c", str(file), USER, PASSWORD], check=True, timeout=30)
    return "allow_anonymous false", f"password_file {file}"


def write_picture(directory: Path) -> str:
    """Write one picture. Return the URI of a camera that sees it."""
    from PIL import Image

    Image.new("RGB", (64, 48), (200, 60, 20)).save(directory / "one.png")
    return f"directory:{directory}"


def start_node(
    fleet: Fleet, app: str, node: str, port: int, bundle: Path, *flags: str, **variables: str
) -> None:
    fleet.start(
        node,
        [
            sys.executable,
            "-m",
            f"{app}_app",
            "--node",
            node,
            "--bundle",
            str(bundle),
            "--broker-port",
            str(port),
            "--stats-every-s",
            "0.3",
            *flags,
        ],
        {"OMP_NUM_THREADS": "1", **variables},
    )


class Voice:
    """A client of the broker that hears all of it, and says what a test wants said."""

    def __init__(self, port: int, site: str = "home") -> None:
        self.site = site
        self.heard: list[tuple[str, bytes, bool]] = []  # topic, payload, retained
        self.clock_ahead_s: float | None = None  # None: it does not tell the time
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", 1)
        self._client.loop_start()

    def _take(self, _client: object, _user: object, message: paho.MQTTMessage) -> None:
        self.heard.append((message.topic, message.payload, message.retain))
        if self.clock_ahead_s is None or "/time/" not in message.topic or message.payload == PROBE:
            return
        topic = topics.parse(message.topic)
        asked = decode(topic.kind, message.payload)
        if isinstance(asked, TimeRequest):
            reply = TimeReply(asked.asked_at_s, time.time() + self.clock_ahead_s)
            self.say(Kind.TIME_REPLY, topic.node, reply)

    def say(self, kind: Kind, node: str, message: Message) -> None:
        topic = str(Topic(self.site, kind, node))
        rule = kind.value
        sent = self._client.publish(topic, encode(message), rule.qos, rule.retain)
        if rule.qos:
            sent.wait_for_publish(IN_TIME_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain).wait_for_publish(IN_TIME_S)

    def announce(self, node: str, role: Any, state: Any = "online", **more: Any) -> None:
        self.say(Kind.STATUS, node, Status(role, more.pop("session", 7), state, **more))

    def wait_until(self, true: Callable[[], Any]) -> Any:
        until_s = time.monotonic() + IN_TIME_S
        while not (found := true()):
            assert time.monotonic() < until_s, "not in time"
            time.sleep(0.02)
        return found

    def list_payloads(self, topic: str) -> list[bytes]:
        return [payload for heard, payload, _ in list(self.heard) if heard == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
