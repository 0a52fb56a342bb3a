"""A simulated site in one process: an edge and its devices, each with its own broker connection.

Started by benchmarks/cloud.py, one process per site. The machines, loops, sections, answer logs
and transports are those of edge_app and device_app; only the frames come out of memory. With
--bare paho clients take their place, which pass bytes on (benchmarks/bare.py). The rate comes as a
retained message on RATE; sites start their ticks at different phases, as cameras of different
owners do.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import paho.mqtt.client as paho

from benchmarks import bare
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.ids import tick_of
from ddnn.exits.device_node import DeviceNode, list_device_sections
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.manifest import Manifest
from ddnn.exits.timing import Timing
from ddnn.protocol.machine import Captured, Machine
from ddnn.protocol.messages import RoleName
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import load_bundle, read_manifest
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.service import ddnn_version

RATE = "bench/rate"  # samples per second and site; 0: none
READY = "bench/ready"  # /<site>


class Sizes(msgspec.Struct, frozen=True):
    """Payload bytes of the messages, for the bare exchange."""

    scores: int = 60
    features: int = 80
    escalate: int = 20
    uplink: int = 80
    result: int = 500

    def options(self) -> list[str]:
        sizes = msgspec.structs.asdict(self).items()
        return [word for name, size in sizes for word in (f"--{name}-bytes", str(size))]


class MemoryFrames:
    """One camera's frames at every tick, `phase_s` after it; see ddnn.runtime.loop.Frames."""

    def __init__(self, frames: Path, view: int, rate_hz: float, phase_s: float) -> None:
        images = np.load(frames / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(frames / "view_labels.npy", mmap_mode="r", allow_pickle=False)
        self._images, self._labels = images[:, view].copy(), labels[:, view].tolist()
        self._period_s, self._phase_s = 1 / rate_hz, phase_s
        self._tick = self._last() + 1

    def at_rate(self, rate_hz: float, phase_s: float) -> MemoryFrames:
        other = object.__new__(MemoryFrames)
        other.__dict__.update(self.__dict__, _period_s=1 / rate_hz, _phase_s=phase_s)
        other._tick = other._last() + 1
        return other

    def due_s(self) -> float:
        at_s = self._tick * self._period_s + self._phase_s
        return time.monotonic() + at_s - time.time()

    def take(self) -> Captured:
        tick = max(self._tick, self._last())
        self._tick = tick + 1
        index = tick % len(self._images)
        at_s = tick * self._period_s + self._phase_s
        return Captured(tick, at_s, {"image": self._images[index]}, self._labels[index])

    def _last(self) -> int:
        return tick_of(time.time() - self._phase_s, self._period_s)


class Never:
    """No frame at all."""

    def due_s(self) -> float:
        return float("inf")

    def take(self) -> Captured:
        raise AssertionError("nothing is ever due")


class SystemSite:
    """The real thing."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        manifest, bundle = read_manifest(arguments.bundle)
        hierarchy = manifest.hierarchy
        timing = Timing(deadline_s=arguments.deadline_s, window_s=arguments.window_s)
        site, self._phase = arguments.site, arguments.phase

        def loop(node: str, role: RoleName, names: list[str], make: Callable[..., Machine]) -> Loop:
            log = FileAnswerLog(arguments.state / f"{site}-{node}.answers")
            return Loop(
                Identity(site, node, role, bundle, ddnn_version()),
                make(site, node, bundle, manifest, timing, log.pending),
                MqttTransport(f"{site}-{node}", port=arguments.port, version="5"),
                Resources(
                    load_bundle(arguments.bundle, LiteRtSection, names).sections, answer_log=log
                ),
            )

        edges = [group.id for group in hierarchy.edges]
        self._loops = [loop(e, "edge", _edge_sections(manifest, e), EdgeNode) for e in edges]
        self._cameras = [
            (
                loop(device, "device", list(list_device_sections(manifest, device)), DeviceNode),
                MemoryFrames(arguments.frames, view, 1.0, 0.0),
            )
            for view, device in enumerate(hierarchy.devices)
        ]
        for each in (*self._loops, *(camera for camera, _ in self._cameras)):
            each.start()

    def rate(self, rate_hz: float) -> None:
        for loop, frames in self._cameras:
            phase_s = self._phase / rate_hz if rate_hz else 0.0
            loop.attach(frames.at_rate(rate_hz, phase_s) if rate_hz else Never())

    def close(self) -> None:
        for loop in (*(camera for camera, _ in self._cameras), *self._loops):
            loop.close()


def _edge_sections(manifest: Manifest, edge: str) -> list[str]:
    return [edge] if manifest.hierarchy.edge_section else []


class BareSite:
    """Clients that pass bytes on, in the same number of connections."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._stop = threading.Event()
        _thread(bare.edge, arguments)

    def rate(self, rate_hz: float) -> None:
        self.close()
        self._stop = threading.Event()
        for number in range(self._arguments.devices if rate_hz else 0):
            changed = vars(self._arguments) | {
                "node": f"cam{number + 1}",
                "rate_hz": rate_hz,
                "stop": self._stop,
                "phase_s": self._arguments.phase / rate_hz,
            }
            _thread(bare.device, argparse.Namespace(**changed))

    def close(self) -> None:
        self._stop.set()


def _thread(target: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    threading.Thread(target=target, args=(arguments,), daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--phase", type=float, default=0.0, help="share of a period")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--exit", choices=["local", "cloud"], default="local")
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--deadline-s", type=float, default=1.0)
    parser.add_argument("--window-s", type=float, default=0.12)
    for name, size in msgspec.structs.asdict(Sizes()).items():
        parser.add_argument(f"--{name}-bytes", type=int, default=size)
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    site = BareSite(arguments) if arguments.bare else SystemSite(arguments)
    control = bare.connect(f"control-{arguments.site}", arguments.port, [RATE])

    def on_message(_c: object, _u: object, message: paho.MQTTMessage) -> None:
        site.rate(float(message.payload))

    control.on_message = on_message
    control.loop_start()
    control.publish(f"{READY}/{arguments.site}", b"1", 1, True)
    stop.wait()
    control.disconnect()
    control.loop_stop()
    site.close()


if __name__ == "__main__":
    main()
