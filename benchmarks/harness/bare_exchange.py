"""The baseline: paho clients that pass the bytes of a sample on and compute nothing.

The same processes, hops, lengths of topics and sizes of payloads as in a site, without machine,
codec and section. Each role is a process of its own; see `command`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from typing import Literal

import msgspec

from benchmarks.harness.listener import Listener, PayloadSizes
from benchmarks.harness.processes import module_command, read_options

ROOT = "bare/v1"

Role = Literal["device", "edge", "cloud", "worker"]


class Client(msgspec.Struct, frozen=True):
    """One client of the exchange.

    site:         id, or for the cloud "+": every site
    exit:         the tier that answers every sample
    phase_s:      time from a tick to the capture of its sample
    result_bytes: size of a worker's result
    """

    role: Role
    port: int
    site: str = "demo"
    node: str = ""
    exit: str = "local"
    devices: int = 6
    rate_hz: float = 20.0
    phase_s: float = 0.0
    sizes: PayloadSizes = PayloadSizes()
    result_bytes: int = 0

    @property
    def root(self) -> str:
        return f"{ROOT}/{self.site}"

    @property
    def name(self) -> str:
        """The client's id; a device has a new one at each start."""
        start = f"-{time.monotonic_ns()}" if self.role == "device" else ""
        return f"bare-{self.site}-{self.node or self.role}{start}"


def command(client: Client) -> list[str]:
    """The command of a process that is this client."""
    return module_command("benchmarks.harness.bare_exchange", client)


def answer_topic(site: str) -> str:
    return f"{ROOT}/{site}/answer/edge"


def make_payload(sample: int, size: int) -> bytes:
    return sample.to_bytes(8, "big").ljust(size, b"\0")


def read_sample(payload: bytes) -> int:
    return int.from_bytes(payload[:8], "big")


def run_device(client: Client, stop: threading.Event) -> None:
    """Publish scores at every tick, and features when the edge asks for them, until `stop`."""
    root, sizes = client.root, client.sizes

    def on_message(topic: str, payload: bytes) -> None:
        if topic.endswith("/escalate"):
            features = make_payload(read_sample(payload), sizes.features)
            listener.publish(f"{root}/features/{client.node}", features)

    filters = [f"{root}/escalate", f"{root}/answer/edge"]
    listener = Listener(client.name, client.port, filters, on_message).start()
    period_s = 1 / client.rate_hz
    tick = int(time.time() / period_s)
    while not stop.is_set():
        tick = max(tick + 1, int(time.time() / period_s))
        time.sleep(max(0.0, tick * period_s + client.phase_s - time.time()))
        listener.publish(f"{root}/scores/{client.node}", make_payload(tick, sizes.scores))
    listener.close()


def start_edge(client: Client) -> Listener:
    """Answer once all devices have published; or ask them, send up, and answer then."""
    root, sizes = client.root, client.sizes
    published: Counter[tuple[str, int]] = Counter()

    def on_message(topic: str, payload: bytes) -> None:
        kind, sample = topic.split("/")[3], read_sample(payload)
        if kind != "verdict":
            published[kind, sample] += 1
            if published[kind, sample] < client.devices:
                return
            del published[kind, sample]
        if kind == "features":
            listener.publish(f"{root}/uplink/edge", make_payload(sample, sizes.uplink))
        elif kind == "scores" and client.exit == "cloud":
            listener.publish(f"{root}/escalate", make_payload(sample, sizes.escalate))
        else:
            listener.publish(f"{root}/answer/edge", make_payload(sample, sizes.answer))

    filters = [f"{root}/scores/+", f"{root}/features/+", f"{root}/verdict/edge"]
    listener = Listener(client.name, client.port, filters, on_message)
    return listener.start()


def start_cloud(client: Client) -> Listener:
    """Send scores back for the features of each edge."""

    def on_message(topic: str, payload: bytes) -> None:
        root, is_uplink, _ = topic.partition("/uplink/")
        if is_uplink:
            scores = make_payload(read_sample(payload), client.sizes.scores)
            listener.publish(f"{root}/verdict/edge", scores)

    filters = [f"{client.root}/uplink/+", f"{client.root}/answer/+"]
    listener = Listener(client.name, client.port, filters, on_message)
    return listener.start()


def start_worker(client: Client) -> Listener:
    """Send a result for each task."""

    def on_message(_topic: str, payload: bytes) -> None:
        result = make_payload(read_sample(payload), client.result_bytes)
        listener.publish(f"{client.root}/result/{client.node}", result)

    listener = Listener(client.name, client.port, [f"{client.root}/task"], on_message)
    return listener.start()


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client = read_options(Client)
    if client.role == "device":
        run_device(client, threading.Event())
    start = {"edge": start_edge, "cloud": start_cloud, "worker": start_worker}[client.role]
    start(client)
    threading.Event().wait()


if __name__ == "__main__":
    main()
