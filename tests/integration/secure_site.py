"""A site with certificates: its directory, its files, and a real Mosquitto for its nodes."""

from __future__ import annotations

import datetime
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddnn.adapters.broker import free_port, wait_until_listening
from ddnn.adapters.command import read_config
from ddnn.adapters.mqtt import MqttTransport
from ddnn.adapters.site_file import read_site_file
from ddnn.cli.observer import ObserverSettings
from ddnn.cli.site.directory import create_site, open_site
from ddnn.protocol.topics import probe
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.site_identity import Broker
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp
from tests.parts import MOSQUITTO, need_mosquitto

DAY = datetime.timedelta(days=1)
IN_TIME_S = 30.0
RELOADED_S = 0.3  # Mosquitto reads its files when its loop comes round


class SecureSite:
    """A site whose broker is not started yet."""

    def __init__(self, directory: Path, port: int | None = None, site: str = "home") -> None:
        self.directory, self.port = directory, port or free_port()
        self.path = directory / "site"
        self.now = datetime.datetime.now(datetime.UTC)
        create_site(
            self.path,
            site,
            [Broker("localhost", self.port)],
            installed_at=str(self.path / "broker"),
            home_assistant="homeassistant",
            until=self.now + 30 * DAY,
        )
        self.fleet = Fleet(directory / "logs")

    def add(self, node: str, *roles: Any, days: float = 30, renew: bool = False) -> Path:
        """Add a node; its site file."""
        out = self.directory / f"{node}.site"
        with open_site(self.path) as site:
            site.add(node, roles, out, until=self.now + days * DAY, is_renewed=renew)
        self.reload()
        return out

    def revoke(self, node: str) -> None:
        with open_site(self.path) as site:
            site.revoke(node)
        self.reload()

    def join(self, cloud: Path) -> None:
        """Connect the broker to a cloud's, by a site file of the role `bridge`."""
        with open_site(self.path) as site:
            site.join_cloud(read_site_file(cloud))

    def start(self) -> None:
        need_mosquitto()
        text = (self.path / "broker" / "mosquitto.conf").read_text()
        data = self.directory / "data"
        data.mkdir(parents=True)
        conf = self.directory / "mosquitto.conf"
        conf.write_text(text.replace("/var/lib/mosquitto/", f"{data}/") + "user root\n")
        self.fleet.start("broker", [str(MOSQUITTO), "-c", str(conf)])
        wait_until_listening(self.port)

    def reload(self) -> None:
        if "broker" in self.fleet.nodes:
            self.fleet.send_signal("broker", signal.SIGHUP)
            time.sleep(RELOADED_S)

    def close(self) -> None:
        self.fleet.close()


class Member:
    """A connection with a site file, driven by the test."""

    def __init__(
        self, file: Path, tls: Callable[[], ssl.SSLContext] | None = None, **keys: Any
    ) -> None:
        """tls: other certificates than those of the file."""
        self.settings = read_config(ObserverSettings, {"site_file": str(file), **keys}, {})
        self.events: list[LinkEvent] = []
        self.transport = MqttTransport.of(self.settings, version="5")
        self.transport._tls = tls or self.transport._tls
        site, node = self.settings.site, self.settings.node
        self.transport.start(self.events.append, lambda _: (probe(site, node, "will"), b""))

    def wait_until(self, true: Callable[[], Any]) -> Any:
        until_s = time.monotonic() + IN_TIME_S
        while not (found := true()):
            assert time.monotonic() < until_s, f"not in time: {self.events[-3:]}"
            self.transport.wait(0.05)
        return found

    def connect(self, *filters: str) -> Member:
        """Wait for the connection; subscribe, and wait for what the broker then delivers."""
        self.wait_until(lambda: any(isinstance(event, LinkUp) for event in self.events))
        self.transport.subscribe([*filters, probe(self.settings.site, self.settings.node, "+")])
        self.sync()
        return self

    def sync(self) -> None:
        """Wait until the broker has handled everything that was published before."""
        topic = probe(self.settings.site, self.settings.node, f"sync{len(self.events)}")
        self.transport.publish(topic, b"", 1, False)
        self.wait_until(lambda: Arrived(topic, b"") in self.events)

    def find_refusal(self) -> str:
        """Why the broker refuses this node."""
        down = self.wait_until(
            lambda: next((e for e in self.events if isinstance(e, LinkDown)), None)
        )
        assert not any(isinstance(event, LinkUp) for event in self.events)
        return str(down.reason)

    def list_payloads(self, topic: str) -> list[bytes]:
        return [e.payload for e in self.events if isinstance(e, Arrived) and e.topic == topic]

    def list_topics(self) -> Sequence[str]:
        found = {e.topic for e in self.events if isinstance(e, Arrived)}
        return sorted(topic for topic in found if "/probe/" not in topic)

    def close(self) -> None:
        self.transport.close()
