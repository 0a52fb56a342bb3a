"""A site in one process: an edge and its devices, each with its own broker connection.

Started by benchmarks/cloud/many_sites.py, one process per site. The machines, loops, sections,
answer logs and transports are those of edge_app and device_app; only the frames come from memory.
A bare site has paho clients in their place that pass bytes on (harness/bare_exchange.py). The rate
comes as a retained message on RATE. Sites start their ticks at different phases, as cameras of
different owners do.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.harness import bare_exchange
from benchmarks.harness.listener import Listener
from benchmarks.harness.processes import read_options
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.ids import tick_of
from ddnn.exits.device_exit import list_device_sections
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.timing import Timing
from ddnn.protocol.machine import Captured, Machine
from ddnn.protocol.messages import RoleName
from ddnn.runtime.answer_log import FileAnswerLog
from ddnn.runtime.bundle import load_bundle, read_manifest
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.service import find_ddnn_version
from ddnn.runtime.site_identity import Broker

RATE = "bench/rate"  # samples per second and site; 0: none
READY = "bench/ready"  # /<site>
WINDOW_S = 0.12


class Options(msgspec.Struct, frozen=True):
    """What one process runs.

    phase:  share of a period by which the site's ticks are later than those of phase 0
    bare:   the edge of a bare exchange; else the bundle of the system runs
    frames: directory with images.npy and view_labels.npy
    state:  directory of the answers that were not confirmed
    """

    site: str
    port: int
    phase: float
    bare: bare_exchange.Client | None = None
    bundle: str = ""
    frames: str = ""
    state: str = ""
    deadline_s: float = 1.0


class MemoryFrames:
    """One camera's frames at every tick, `phase_s` after it; see ddnn.runtime.loop.Frames."""

    def __init__(self, frames: str, view: int, rate_hz: float, phase_s: float) -> None:
        images = np.load(f"{frames}/images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(f"{frames}/view_labels.npy", mmap_mode="r", allow_pickle=False)
        self._images, self._labels = images[:, view].copy(), labels[:, view].tolist()
        self._period_s, self._phase_s = 1 / rate_hz, phase_s
        self._tick = self._newest_tick() + 1

    def share_at_rate(self, rate_hz: float, phase_s: float) -> MemoryFrames:
        """The same frames at another rate, without a copy of them."""
        other = object.__new__(MemoryFrames)
        other.__dict__.update(self.__dict__, _period_s=1 / rate_hz, _phase_s=phase_s)
        other._tick = other._newest_tick() + 1
        return other

    def due_s(self) -> float:
        at_s = self._tick * self._period_s + self._phase_s
        return time.monotonic() + at_s - time.time()

    def take(self) -> Captured:
        tick = max(self._tick, self._newest_tick())
        self._tick = tick + 1
        index = tick % len(self._images)
        at_s = tick * self._period_s + self._phase_s
        return Captured(tick, at_s, {"image": self._images[index]}, self._labels[index])

    def _newest_tick(self) -> int:
        return tick_of(time.time() - self._phase_s, self._period_s)


class NoFrames:
    """A camera that captures nothing."""

    def due_s(self) -> float:
        return float("inf")

    def take(self) -> Captured:
        raise AssertionError("no frame is ever due")


class SystemSite:
    """The machines of an edge and its devices, each in its own loop."""

    def __init__(self, options: Options) -> None:
        path, state = Path(options.bundle), Path(options.state)
        manifest, bundle = read_manifest(path)
        hierarchy = manifest.hierarchy
        timing = Timing(deadline_s=options.deadline_s, window_s=WINDOW_S)
        site, self._phase = options.site, options.phase

        def make_loop(
            node: str, role: RoleName, sections: Sequence[str], make: Callable[..., Machine]
        ) -> Loop:
            log = FileAnswerLog(state / f"{site}-{node}.answers")
            return Loop(
                Identity(site, node, role, bundle, find_ddnn_version()),
                make(site, node, bundle, manifest, timing, log.pending),
                MqttTransport(f"{site}-{node}", [Broker("127.0.0.1", options.port)], "5"),
                Resources(load_bundle(path, LiteRtSection, sections).sections, answer_log=log),
            )

        self._edges = [
            make_loop(edge, "edge", [edge] if hierarchy.edge_section else [], EdgeNode)
            for edge in (group.id for group in hierarchy.edges)
        ]
        self._cameras = [
            (
                make_loop(device, "device", list_device_sections(manifest, device), DeviceNode),
                MemoryFrames(options.frames, view, 1.0, 0.0),
            )
            for view, device in enumerate(hierarchy.devices)
        ]
        for loop in (*self._edges, *(camera for camera, _ in self._cameras)):
            loop.start()

    def set_rate(self, rate_hz: float) -> None:
        for loop, frames in self._cameras:
            phase_s = self._phase / rate_hz if rate_hz else 0.0
            loop.attach(frames.share_at_rate(rate_hz, phase_s) if rate_hz else NoFrames())

    def close(self) -> None:
        for loop in (*(camera for camera, _ in self._cameras), *self._edges):
            loop.close()


class BareSite:
    """Clients that pass bytes on, in the same number of connections."""

    def __init__(self, edge: bare_exchange.Client, phase: float) -> None:
        self._client, self._phase = edge, phase
        self._stop = threading.Event()
        self._edge = bare_exchange.start_edge(edge)

    def set_rate(self, rate_hz: float) -> None:
        self._stop.set()
        self._stop = threading.Event()
        for number in range(self._client.devices if rate_hz else 0):
            device = msgspec.structs.replace(
                self._client,
                role="device",
                node=f"cam{number + 1}",
                rate_hz=rate_hz,
                phase_s=self._phase / rate_hz,
            )
            run = bare_exchange.run_device
            threading.Thread(target=run, args=(device, self._stop), daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._edge.close()


def main() -> None:
    options = read_options(Options)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    bare = options.bare
    site = SystemSite(options) if bare is None else BareSite(bare, options.phase)
    control = Listener(
        f"control-{options.site}",
        options.port,
        [RATE],
        lambda _, payload: site.set_rate(float(payload)),
    ).start()
    control.publish(f"{READY}/{options.site}", b"1", retain=True)
    stop.wait()
    control.close()
    site.close()


if __name__ == "__main__":
    main()
