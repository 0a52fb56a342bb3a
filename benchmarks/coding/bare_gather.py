"""The baseline of a shared layer: the bytes of a task to all workers, the bytes of their results
back, and nothing computed."""

from __future__ import annotations

import signal
import threading
import time

from benchmarks.harness import bare_exchange
from benchmarks.harness.listener import Listener
from benchmarks.harness.worker_site import RATE_HZ, READY_S, SITE, LatencySite, PlannedLayer
from ddnn.coding.detail import read_detail
from ddnn.core.ids import tick_of
from ddnn.core.plan import make_zeros
from ddnn.errors import DdnnError
from ddnn.protocol.codec import encode
from ddnn.protocol.messages import Result, Task, make_tensors


def count_blocks(layer: PlannedLayer) -> int:
    """How many blocks the layer is cut into."""
    return len(read_detail(layer.plan).generator[0])


ROOT = f"{bare_exchange.ROOT}/{SITE}"


class BareGather:
    """Bare workers of a plan, as processes of a site, and the client that asks them."""

    def __init__(self, site: LatencySite, layer: PlannedLayer) -> None:
        plan = layer.plan
        task, result = (
            make_tensors(make_zeros(specs), specs)
            for specs in (plan.inputs, plan.pieces[0].outputs)
        )
        job = int(time.time() * 1e3)
        self._task_bytes = len(encode(Task(1, plan.id, job, task)))
        result_bytes = len(encode(Result(1, plan.id, job, 0, result)))
        self._fleet, self._workers = site.fleet, len(layer.workers)
        self._enough = count_blocks(layer)
        self._nodes = [f"bare{i + 1}" for i in range(self._workers)]
        self._sent_s: dict[int, float] = {}
        self._came_s: dict[int, list[float]] = {}
        self._lock = threading.Lock()
        for node in self._nodes:
            worker = bare_exchange.Client(
                "worker", site.port, SITE, node, result_bytes=result_bytes
            )
            self._fleet.start(node, bare_exchange.command(worker))
        filters = [f"{ROOT}/result/+"]
        self._listener = Listener("bare-gather", site.port, filters, self._on_message).start()

    def _on_message(self, _topic: str, payload: bytes) -> None:
        came_s = time.perf_counter()
        with self._lock:
            self._came_s.setdefault(bare_exchange.read_sample(payload), []).append(came_s)

    def run(self, seconds: float) -> tuple[list[float], list[float]]:
        """Seconds to the first results that are enough, and to the last one.

        Tasks are sent half a period after each capture of the cameras.
        """
        tick = tick_of(time.time(), 1 / RATE_HZ)
        until_s = time.monotonic() + READY_S
        while self._count(tick) < self._workers:  # until all answer
            if time.monotonic() > until_s:
                raise DdnnError(f"bare workers: {self._fleet.read_last_line(self._nodes[0])}")
            tick = self._send(tick)
            time.sleep(0.1)
        first = tick + int(RATE_HZ / 4)
        last = first + int(seconds * RATE_HZ)
        while tick < last:
            tick = self._send(tick)
        time.sleep(0.2)
        complete = [n for n in range(first, last) if self._count(n) == self._workers]
        to_enough, to_all = (
            [self._came_s[n][count - 1] - self._sent_s[n] for n in complete]
            for count in (self._enough, self._workers)
        )
        return to_enough, to_all

    def _count(self, tick: int) -> int:
        return len(self._came_s.get(tick, ()))

    def _send(self, tick: int) -> int:
        tick = max(tick + 1, tick_of(time.time(), 1 / RATE_HZ))
        time.sleep(max(0.0, (tick + 0.5) / RATE_HZ - time.time()))
        self._sent_s[tick] = time.perf_counter()
        payload = bare_exchange.make_payload(tick, self._task_bytes)
        self._listener.publish(f"{ROOT}/task", payload)
        return tick

    def close(self) -> None:
        self._listener.close()
        for node in self._nodes:
            self._fleet.send_signal(node, signal.SIGKILL)
