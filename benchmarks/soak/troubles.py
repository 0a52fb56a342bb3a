"""What happens around nodes: clocks are set, disks fill up, a link is thin, a peer floods, load.

    clock   the wall clock of a device, the cloud or the dashboard is set, and back again
    disk    a node cannot write a file (its limit on the size of files is 0)
    link    the edge's link to the broker takes LINK_BYTES_PER_S
    flood   FLOOD_PER_S scores a second with random sample numbers, in the name of a camera
    load    twice as many busy processes as the machine has cores

One trouble at a time, beside the faults of nodes. A node whose disk is full keeps answers in memory
only, so that it is not killed meanwhile. The clock of the lead edge is not set: it numbers the
samples, and the soak knows by their numbers when they were taken.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from benchmarks.harness.listener import Listener
from benchmarks.soak.proxy import ThinLink
from ddnn.errors import LinkError
from ddnn.local_site.broker_process import BROKER
from ddnn.local_site.site import Site
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import encode
from ddnn.protocol.messages import MAX_COUNT, Scores, Tensor
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import read_manifest

Trouble = Literal["clock", "disk", "link", "flood", "load"]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)
LASTS_S = (2.0, 5.0)
GUARD_S = 5.0  # after a full disk: until what it refused is written
STEPS_S = (-5.0, 5.0, -3600.0, 3600.0, -30 * 86400.0, 60 * 86400.0)
LINK_BYTES_PER_S = 20_000.0  # three times what the edge sends at 10 samples/s
FLOOD_PER_S, FLOOD_STEP_S = 2000, 0.02
CLOCK_DIRECTORY = Path(__file__).parent / "stepped_clock"
CLOCK_VARIABLE = "DDNN_SOAK_CLOCK"


@dataclass(frozen=True, slots=True)
class Plan:
    """A trouble `after_s` after the one before has ended; `node` and `step_s` where they matter."""

    after_s: float
    what: Trouble
    lasts_s: float
    node: str
    step_s: float


def draw_troubles(
    random: np.random.Generator, devices: Sequence[str], others: Sequence[str], gap_s: float
) -> Iterator[Plan]:
    """Yield troubles without end, each kind as often as every other.

    devices: nodes with a camera; others: nodes that keep a clock or a disk besides
    """
    while True:
        for index in random.permutation(len(TROUBLES)):
            what = TROUBLES[int(index)]
            choice = devices if what == "flood" else [*devices, *others]
            yield Plan(
                float(random.uniform(0.3, 1.7)) * gap_s,
                what,
                float(random.uniform(*LASTS_S)),
                str(random.choice(list(choice))),
                float(random.choice(STEPS_S)),
            )


class Troubles:
    """Begins and ends the troubles of a site."""

    def __init__(self, site: Site, random: np.random.Generator, gap_s: float) -> None:
        """Prepare the site, which has not been started."""
        hierarchy = site.config.manifest.hierarchy
        self._site, self._lead, self._random = site, hierarchy.lead, random
        self.guarded: dict[str, float] = {}  # nodes that must not be killed, and until when
        self.counts: Counter[str] = Counter()
        self.begun: list[tuple[int, str, str]] = []  # the sample of then, what, which node
        self._link = ThinLink(site.port)
        site.ports[self._lead] = self._link.port
        others = [node for node in site.config.nodes if node not in (BROKER, *hierarchy.devices)]
        self._clocks = {
            node: site.state / f"{node}.clock" for node in (*hierarchy.devices, *others)
        }
        path = os.pathsep.join([str(CLOCK_DIRECTORY), os.environ.get("PYTHONPATH", "")])
        for node, file in self._clocks.items():
            file.write_text("0")
            site.variables[node] = {"PYTHONPATH": path, CLOCK_VARIABLE: str(file)}
        self._plans = draw_troubles(random, hierarchy.devices, others, gap_s)
        self._plan = next(self._plans)
        self._at_s: float | None = None  # when the plan begins, or ends
        self._ends: contextlib.ExitStack | None = None

    def step(self, now_s: float, away: Sequence[str]) -> None:
        """Begin or end what is due. away: nodes that do not run now."""
        self.guarded = {node: s for node, s in self.guarded.items() if s > now_s}
        if self._at_s is None:
            self._at_s = now_s + self._plan.after_s
        if now_s < self._at_s:
            return
        if self._ends is not None:
            self.end()
            self._plan = next(self._plans)
            self._at_s = now_s + self._plan.after_s
            return
        self._ends = contextlib.ExitStack()
        if self._begin(self._plan, now_s, away):
            self.counts[self._plan.what] += 1
            self.begun.append((self._site.tick(), self._plan.what, self._plan.node))
        self._at_s = now_s + self._plan.lasts_s

    def end(self) -> None:
        """End the trouble of now, if there is one."""
        if self._ends is not None:
            self._ends.close()
            self._ends = None

    def set_clock_right(self, node: str) -> None:
        """Before a node starts: without the lead edge it has no other time than its own."""
        if node in self._clocks:
            self._clocks[node].write_text("0")

    def close(self) -> None:
        self.end()
        self._link.close()

    def _begin(self, plan: Plan, now_s: float, away: Sequence[str]) -> bool:
        ends = self._ends
        if ends is None or (plan.what in ("clock", "disk") and plan.node in away):
            return False
        if plan.what == "clock":
            if plan.node == self._lead:
                return False
            self._clocks[plan.node].write_text(f"{plan.step_s}")
            ends.callback(self.set_clock_right, plan.node)
        elif plan.what == "disk":
            pid = self._site.fleet.find_pid(plan.node)
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            self.guarded[plan.node] = now_s + plan.lasts_s + GUARD_S
            ends.callback(_restore_limit, pid, hard)
        elif plan.what == "link":
            self._link.bytes_per_s = LINK_BYTES_PER_S
            ends.callback(setattr, self._link, "bytes_per_s", None)
        elif plan.what == "flood":
            ends.enter_context(_flooding(self._site, plan.node, self._random))
        else:
            ends.enter_context(_busy_cores())
        return True


def _restore_limit(pid: int, hard: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextlib.contextmanager
def _flooding(site: Site, node: str, random: np.random.Generator) -> Iterator[None]:
    """Publish well-formed scores with random sample numbers, half of them of the near future."""
    manifest, stop = site.config.manifest, threading.Event()
    mask = manifest.hierarchy.make_mask([node])
    wire = manifest.score_format.encode(np.zeros(len(manifest.classes), np.float32))
    topic = str(Topic(SITE, Kind.SCORES, node))
    bundle = read_manifest(site.config.bundle)[1]
    try:
        listener = Listener(f"flood-{node}", site.port, []).start()
    except LinkError:  # the broker is away
        yield
        return

    def publish() -> None:
        while not stop.wait(FLOOD_STEP_S):
            now = site.tick()
            for n in range(int(FLOOD_PER_S * FLOOD_STEP_S)):
                far = int(random.integers(0, MAX_COUNT))
                sample = far if n % 2 else now + int(random.integers(20, 10_000))
                scores = Scores(1, sample, bundle, mask, sample / site.rate_hz, Tensor.of(wire))
                listener.publish(topic, encode(scores))

    thread = threading.Thread(target=publish, name="flood", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        listener.close()


@contextlib.contextmanager
def _busy_cores() -> Iterator[None]:
    command = [sys.executable, "-S", "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
