"""The baseline of benchmarks/hierarchy.py: paho clients that only pass bytes on.

The same processes, hops, topics' lengths and payload sizes as the hierarchy, and no machine, no
codec, no section. Started by the benchmark, one process per role.
"""

from __future__ import annotations

import argparse
import signal
import socket
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

SITE = "demo"
ROOT = f"bare/v1/{SITE}"


def connect(name: str, port: int, filters: list[str]) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"bare-{name}")

    def on_connect(*_: object) -> None:
        for text in filters:
            client.subscribe(text, 1)

    client.on_connect = on_connect
    client.on_socket_open = lambda _c, _u, sock: sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    client.connect("127.0.0.1", port, 30)
    return client


def body(sample: int, size: int) -> bytes:
    return sample.to_bytes(8, "big").ljust(size, b"\0")


def number(message: paho.MQTTMessage) -> int:
    return int.from_bytes(message.payload[:8], "big")


def device(arguments: argparse.Namespace) -> None:
    """Publishes at every tick, and again when asked."""
    root = f"bare/v1/{arguments.site}"
    name = f"{arguments.site}-{arguments.node}-{time.monotonic_ns()}"
    client = connect(name, arguments.port, [f"{root}/escalate", f"{root}/result"])

    def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("escalate"):
            size = arguments.features_bytes
            client.publish(f"{root}/features/{arguments.node}", body(number(message), size))

    client.on_message = on_message
    client.loop_start()
    period_s = 1 / arguments.rate_hz
    tick = int(time.time() / period_s)
    while not arguments.stop.is_set():
        tick = max(tick + 1, int(time.time() / period_s))
        time.sleep(max(0.0, tick * period_s + arguments.phase_s - time.time()))
        client.publish(f"{root}/scores/{arguments.node}", body(tick, arguments.scores_bytes))
    client.disconnect()
    client.loop_stop()


def edge(arguments: argparse.Namespace) -> None:
    """Answers once all devices have published; or asks them, sends up, and answers then."""
    root = f"bare/v1/{arguments.site}"
    filters = [f"{root}/scores/+", f"{root}/features/+", f"{root}/verdict/edge"]
    client = connect(f"{arguments.site}-edge", arguments.port, filters)
    heard: dict[tuple[str, int], int] = {}

    def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
        kind, sample = message.topic.split("/")[3], number(message)
        if kind == "verdict":
            client.publish(f"{root}/result", body(sample, arguments.result_bytes))
            return
        count = heard[kind, sample] = heard.get((kind, sample), 0) + 1
        if count < arguments.devices:
            return
        del heard[kind, sample]
        if kind == "features":
            client.publish(f"{root}/uplink/edge", body(sample, arguments.uplink_bytes))
        elif arguments.exit == "cloud":
            client.publish(f"{root}/escalate", body(sample, arguments.escalate_bytes))
        else:
            client.publish(f"{root}/result", body(sample, arguments.result_bytes))

    client.on_message = on_message
    client.loop_forever()


def cloud(arguments: argparse.Namespace) -> None:
    """Sends back what comes up, of one site or of all ('+')."""
    root = f"bare/v1/{arguments.site}"
    client = connect("cloud", arguments.port, [f"{root}/uplink/+", f"{root}/result"])

    def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
        sender, is_uplink, _ = message.topic.partition("/uplink/")
        if is_uplink:
            client.publish(f"{sender}/verdict/edge", body(number(message), arguments.scores_bytes))

    client.on_message = on_message
    client.loop_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["device", "edge", "cloud"])
    parser.add_argument("--site", default=SITE)
    parser.add_argument("--node", default="")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--exit", choices=["local", "cloud"], default="local")
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--rate-hz", type=float, default=20.0)
    for name, size in (
        ("scores", 60),
        ("features", 80),
        ("escalate", 20),
        ("uplink", 80),
        ("result", 500),
    ):
        parser.add_argument(f"--{name}-bytes", type=int, default=size)
    arguments = parser.parse_args(namespace=argparse.Namespace(stop=threading.Event(), phase_s=0.0))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.current_thread().name = arguments.role
    {"device": device, "edge": edge, "cloud": cloud}[arguments.role](arguments)


if __name__ == "__main__":
    main()
