"""A site whose edge shares its section among workers, for one kind of redundancy after the other.

Broker and cameras stay; edge and workers are new processes for each system.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.listener import Listener
from benchmarks.harness.processes import ONE_THREAD, app_command
from ddnn.core.ids import tick_of
from ddnn.core.plan import Plan
from ddnn.errors import DdnnError
from ddnn.local_site.bundles import parse_thresholds
from ddnn.local_site.site import SiteConfig
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.messages import Answer
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.topics import Kind, Topic, topic_filter
from ddnn.runtime.fleet import Fleet

SITE, EDGE = "bench", "edge"
RATE_HZ = 50.0
DEADLINE_S = 1.0
LAYER_TIMEOUT_S = 0.06  # edge_app's default
READY_S = 40.0
END_S = 10.0
ALL_EXIT_AT_THE_EDGE = ("local=0", "edge=1")


@dataclass
class Phase:
    """Some seconds of one system in one condition: free, killed or stopped."""

    system: str
    condition: str
    first: int  # sample
    last: int
    signalled_s: float = 0.0
    rate_hz: float = RATE_HZ


@dataclass(frozen=True)
class PlannedLayer:
    """A plan by which workers compute the edge's section, or a part of it, and its directory."""

    path: Path
    plan: Plan

    @property
    def workers(self) -> list[str]:
        return list(self.plan.placement)


class EdgeListener:
    """The answers of all nodes and the edge's state of its workers, each with its arrival.

    Answers are kept as they come and decoded later. `command` is published as retained.
    """

    def __init__(self, port: int, command: tuple[str, bytes]) -> None:
        self.answers: dict[int, tuple[bytes, float]] = {}  # by sample, the first to arrive
        self.newest: tuple[int, float] = (0, 0.0)  # sample that the edge answered, arrival
        self.states: list[tuple[float, OffloadState]] = []
        filters = [topic_filter(Kind.ANSWER, SITE), topic_filter(Kind.OFFLOAD, SITE)]
        self._listener = Listener("edge-listener", port, filters, self._on_message).start()
        self._listener.publish(*command, retain=True)

    def _on_message(self, topic: str, payload: bytes) -> None:
        now_s = time.time()
        if "/answer/" in topic:
            answer = decode(Kind.ANSWER, payload)
            assert isinstance(answer, Answer)
            self.answers.setdefault(answer.sample, (payload, now_s))
            if answer.node == EDGE:
                self.newest = (answer.sample, now_s)
        else:
            state = decode(Kind.OFFLOAD, payload)
            assert isinstance(state, OffloadState)
            self.states.append((now_s, state))

    def usual_latency_s(self, rate_hz: float) -> float:
        """The median of the newest answers."""
        newest = list(self.answers.items())[-50:]
        return float(np.median([arrived_s - n / rate_hz for n, (_, arrived_s) in newest]))

    def close(self) -> None:
        self._listener.close()


class LatencySite:
    """The processes; `phases` and `losses` record what was done to them."""

    def __init__(
        self,
        config: SiteConfig,
        plans: Mapping[str, PlannedLayer],
        broker: tuple[Fleet, int, Path],
        settle_s: float,
        rate_hz: float = RATE_HZ,
    ) -> None:
        """plans: by system; one without a plan has no workers. broker: see `running_broker`, which
        ends all processes. settle_s: after each start."""
        self._config, self._plans, self._settle_s = config, plans, settle_s
        self._rate_hz = rate_hz
        self._system, self._starts = "", 0
        self.phases: list[Phase] = []
        self.losses: list[list[str]] = []
        self.fleet, self.port, self._state = broker
        command = parse_thresholds(config, ALL_EXIT_AT_THE_EDGE)
        assert command is not None
        topic = str(Topic(SITE, Kind.THRESHOLDS, EDGE))
        self.listener = EdgeListener(self.port, (topic, encode(command)))
        for camera in config.manifest.hierarchy.devices:
            frames = ("--source", f"frames:{config.frames}", "--rate-hz", str(rate_hz))
            self._start_app(camera, "device_app", *frames)

    def _start_app(self, node: str, module: str, *more: str) -> None:
        self._starts += 1  # a new directory: what an earlier process did not deliver is not sent
        state = self._state / f"{node}-{self._starts}"
        state.mkdir()
        options = {
            "node": node,
            "site": SITE,
            "bundle": self._config.bundle,
            "state": state,
            "mqtt": 5,
            "broker-port": self.port,
            "deadline-s": DEADLINE_S,
        }
        self.fleet.start(node, [*app_command(module, options), *more], ONE_THREAD)

    @property
    def _workers(self) -> list[str]:
        layer = self._plans.get(self._system)
        return layer.workers if layer is not None else []

    def start_system(self, system: str) -> None:
        """End the edge and the workers that run, start those of a system; returns once it
        settled."""
        self._end([EDGE, *self._workers])
        self._system, began_s = system, time.time()
        layer = self._plans.get(system)
        if layer is None:
            self._start_app(EDGE, "edge_app")
        else:
            timeout = ("--redundancy", "on", "--layer-timeout-s", str(LAYER_TIMEOUT_S))
            self._start_app(EDGE, "edge_app", *timeout, "--plan", str(layer.path))
            for worker in self._workers:
                self._start_app(worker, "device_app", "--lend", "on", "--plan", str(layer.path))
        self._wait_until_ready(began_s)
        time.sleep(self._settle_s)

    def _end(self, nodes: Sequence[str]) -> None:
        running = [node for node in nodes if self.fleet.is_alive(node)]
        for node in running:
            self.fleet.send_signal(node, signal.SIGTERM)
        until_s = time.monotonic() + END_S
        while any(self.fleet.is_alive(node) for node in running):
            if time.monotonic() > until_s:
                raise DdnnError(f"{running} have not ended")
            time.sleep(0.02)

    def _wait_until_ready(self, since_s: float) -> None:
        """Until the edge answers and all workers are live."""
        until_s = time.monotonic() + READY_S
        while not self._is_ready(since_s):
            for node in (EDGE, *self._workers):
                self.fleet.require_alive(node)
            if time.monotonic() > until_s:
                raise DdnnError(f"{self._system} is not up: {self.fleet.read_last_line(EDGE)}")
            time.sleep(0.02)

    def _is_ready(self, since_s: float) -> bool:
        sample, arrived_s = self.listener.newest
        if arrived_s < since_s or sample / self._rate_hz < since_s:
            return False
        layer = self._plans.get(self._system)
        if layer is None:
            return True
        if not self.listener.states or self.listener.states[-1][0] < since_s:
            return False
        state = self.listener.states[-1][1]
        return state.plan == layer.plan.id and state.live_pieces == state.pieces

    def run_free(self, seconds: float) -> None:
        """Let samples pass without a fault."""
        first = tick_of(time.time(), 1 / self._rate_hz) + 1
        time.sleep(seconds)
        self.phases.append(
            Phase(self._system, "free", first, self._newest_tick(), rate_hz=self._rate_hz)
        )

    def strike(
        self, kind: signal.Signals, workers: Sequence[str], share: float, seconds: float
    ) -> None:
        """Signal workers while a sample is under way, let samples pass, bring the workers back.

        share: from 0 to 1, how far the sample has come, of 0.8 of the usual latency: later, most
        would have arrived.
        """
        rate_hz = self._rate_hz
        next_tick = tick_of(time.time(), 1 / rate_hz) + 2
        strike_s = next_tick / rate_hz + 0.8 * share * self.listener.usual_latency_s(rate_hz)
        processes = [self.fleet.find_pid(worker) for worker in workers]
        time.sleep(max(0.0, strike_s - time.time()))
        at_s = time.time()
        for pid in processes:  # all at once: Fleet would wait for the end of each
            os.kill(pid, kind)
        time.sleep(seconds)
        condition = "killed" if kind == signal.SIGKILL else "stopped"
        # Samples before `next_tick` that had not arrived were under way, too.
        first = next_tick - int(DEADLINE_S * rate_hz)
        self.phases.append(
            Phase(self._system, condition, first, self._newest_tick(), at_s, rate_hz)
        )
        self.losses.append(list(workers))
        back_s = time.time()
        for worker in workers:
            if kind == signal.SIGKILL:
                self.fleet.send_signal(worker, kind)  # collects its exit status
                self.fleet.start(worker)
            else:
                self.fleet.send_signal(worker, signal.SIGCONT)
        self._wait_until_ready(back_s)
        time.sleep(self._settle_s / 3)

    def _newest_tick(self) -> int:
        return tick_of(time.time() - 0.05, 1 / self._rate_hz)

    def close(self) -> None:
        self.listener.close()
