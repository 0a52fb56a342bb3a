"""A broker of one's own: Mosquitto if it is on PATH, else amqtt in a process of its own.

python -m ddnn.adapters.broker --port 1883        the embedded broker (MQTT 3.1.1)
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ddnn.errors import ConfigError, LinkError

Kind = Literal["mosquitto", "embedded"]
_PORTS = range(20_000, 32_768)  # below those that systems give to outgoing connections

MOSQUITTO_CONF = """\
# written by ddnn: a broker for one machine, reachable from it alone
listener {port} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_queued_messages 10000
message_size_limit 4194304
log_dest stderr
log_type error
log_type warning
"""


def choose(kind: str | None) -> Kind:
    """The wanted broker, or the best there is."""
    if kind in (None, "auto"):
        return "mosquitto" if _mosquitto() else "embedded"
    if kind not in ("mosquitto", "embedded"):
        raise ConfigError(f"--broker {kind!r}: expected mosquitto or embedded")
    if kind == "mosquitto" and not _mosquitto():
        raise ConfigError(
            "mosquitto is not on PATH: install it (apt install mosquitto) or use --broker embedded"
        )
    return "mosquitto" if kind == "mosquitto" else "embedded"


def command(kind: Kind, port: int, directory: Path) -> list[str]:
    """The command that runs the broker on loopback."""
    if kind == "embedded":
        return [sys.executable, "-m", "ddnn.adapters.broker", "--port", str(port)]
    conf = directory / "mosquitto.conf"
    conf.write_text(MOSQUITTO_CONF.format(port=port))
    return [_mosquitto() or "mosquitto", "-c", str(conf)]


def free_port() -> int:
    """A port of loopback that was free a moment ago, and that no outgoing connection is given."""
    for _ in range(1000):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))  # no seed makes two choose alike
        if is_free(port):
            return port
    raise LinkError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE  # else the broker says why it cannot listen
    return True


def wait_until_listening(port: int, timeout_s: float = 15.0) -> None:
    """Return once something accepts connections on the port; LinkError after the deadline."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise LinkError(f"no broker on 127.0.0.1:{port} after {timeout_s:.0f} s; see its log")


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Subscriptions(dict[str, list[Any]]):
    """amqtt's table of subscriptions by filter, which may change while it is iterated over.

    amqtt pauses while it does so; a client that connected while another subscribed was lost.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.keys()))

    def items(self) -> Any:
        return [(name, tuple(clients)) for name, clients in tuple(super().items())]


async def _serve(host: str, port: int) -> None:
    from amqtt.broker import Broker  # the extra `broker`: only this process needs it

    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
            },
        }
    )
    broker._subscriptions = Subscriptions()
    await broker.start()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await broker.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description="The embedded MQTT 3.1.1 broker (amqtt).")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, default=1883, help="port to listen on [1883]")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="broker: %(message)s")
    asyncio.run(_serve(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
