"""A site whose edge computes a layer on workers, and what its answers must be."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.exits.inference import infer
from ddnn.exits.manifest import Judgement, Manifest
from ddnn.local_site.site import Site
from ddnn.protocol.messages import Answer, OffloadState
from ddnn.runtime.bundle import load_bundle
from ddnn.runtime.plans import read_plan

RATE_HZ = 20.0
DEADLINE_S = 2.5
# Long against what a busy test machine takes. With s gone nothing ever waits for them.
TIMES = {"window_s": 0.5, "deadline_s": DEADLINE_S, "rate_hz": RATE_HZ}
LAYER_TIMEOUT_S = 0.8
FLOW_S = 0.8  # so long samples flow in each state
RECOVER_S = 15.0
TOLERANCE = 1e-4  # of probabilities
EVERYONE = [f"cam{i}" for i in range(1, 7)]


class Workers:
    """A site whose samples all go to the edge, and the answers that are expected of it."""

    def __init__(self, site: Site, images: np.ndarray) -> None:
        loaded = load_bundle(site.config.bundle, LiteRtSection)
        manifest: Manifest = loaded.manifest.with_thresholds({"local": 0.0})
        self.site, self.bundle = site, loaded.id
        self.plan = read_plan(site.config.plan, loaded.id)

        @cache
        def compute_expected(index: int) -> Judgement:
            return infer(manifest, loaded.sections, images[index])

        self.expected = lambda sample: compute_expected(sample % len(images))

    # ------------------------------------------------------------- what is done

    def signal(self, number: signal.Signals, *nodes: str) -> None:
        for node in nodes:
            self.site.fleet.send_signal(node, number)

    def kill(self, *nodes: str) -> None:
        self.signal(signal.SIGKILL, *nodes)

    def start(self, *nodes: str) -> None:
        for node in nodes:
            self.site.fleet.start(node)

    def lend(self, worker: str, plan: Path) -> None:
        """Start a worker with its own copy of the plan."""
        self.site.start_app(worker, "device_app", "--lend", "on", "--plan", str(plan))

    def log(self, node: str) -> str:
        return (self.site.state / "logs" / f"{node}.log").read_text()

    # ----------------------------------------------------------- what is watched

    def offload(self) -> OffloadState:
        """Wait for the next state of the workers that the edge publishes."""
        before = self.site.watcher.offload
        return self.wait_until(
            lambda: now if (now := self.site.watcher.offload) is not before else None,
            "the edge publishes the state of its workers",
        )

    def wait_until(self, true: Callable[[], object], what: str):
        until_s = time.monotonic() + RECOVER_S
        while not (found := true()):
            if time.monotonic() > until_s:
                pytest.fail(f"{what}: not within {RECOVER_S} s; {self.site.watcher.offload}")
            time.sleep(0.05)
        return found

    def states(self) -> dict[str, str]:
        return {name: worker.state for name, worker in self.site.watcher.offload.workers.items()}

    def wait_until_whole(self) -> None:
        """Wait until every shard is live."""
        self.wait_until(
            lambda: (state := self.offload()).live_pieces == state.pieces, "all shards live"
        )

    def samples(self, seconds: float = FLOW_S) -> range:
        """Let samples flow. Return their numbers."""
        first = self.site.tick() + 1
        time.sleep(seconds)
        return range(first, self.site.tick())

    def answers(self, samples: range) -> list[Answer]:
        """The stored answers, one to each sample, each by its deadline."""

        def are_all_stored() -> bool:
            return len(self.site.stored(samples)) == len(samples)

        self.wait_until(are_all_stored, f"an answer to each of {samples}")
        stored = self.site.stored(samples)
        for one in stored:
            assert one.first_answered_at_s - one.answer.captured_at_s <= DEADLINE_S, one
            assert not one.answer.late, one
        return [one.answer for one in stored]

    def assert_equal(self, samples: range) -> None:
        """Every answer is what the undistributed model says; all samples went to the edge."""
        assert len(samples) >= 5
        for answer in self.answers(samples):
            expected = self.expected(answer.sample)
            assert (answer.quality, answer.members) == ("full", EVERYONE), answer
            assert (answer.label, answer.exit) == (expected.label, expected.exit)
            assert answer.exit in ("edge", "cloud")
            np.testing.assert_allclose(
                answer.probabilities, expected.probabilities, rtol=0, atol=TOLERANCE
            )
