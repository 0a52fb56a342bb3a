"""A site whose edge computes a layer on workers, and what its answers must be."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.core.section import Arrays, Section
from ddnn.exits.inference import find_first_sure, run_devices, run_exits
from ddnn.exits.manifest import Judgement, Manifest, fuse_features
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
ROUNDING = 1e-5  # of the edge's features, by the decoding of a layer
EVERYONE = [f"cam{i}" for i in range(1, 7)]


class Workers:
    """A site whose samples all go to the edge, and the answers that are expected of it."""

    def __init__(self, site: Site, images: np.ndarray) -> None:
        loaded = load_bundle(site.config.bundle, LiteRtSection)
        manifest: Manifest = loaded.manifest.with_thresholds({"local": 0.0})
        self.site, self.bundle = site, loaded.id
        self.plan = read_plan(site.config.plan, loaded.id)

        @cache
        def list_expected(index: int) -> list[Judgement]:
            return list_judgements(manifest, loaded.sections, images[index])

        self.list_expected = lambda sample: list_expected(sample % len(images))

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
            assert (answer.quality, answer.members) == ("full", EVERYONE), answer
            assert answer.exit in ("edge", "cloud")
            expected = self.list_expected(answer.sample)
            assert any(is_equal(answer, judgement) for judgement in expected), (answer, expected)


class FixedSection(NamedTuple):
    """A section whose outputs are known already."""

    outputs: Arrays

    def __call__(self, inputs: Arrays) -> Arrays:
        return self.outputs

    def example(self) -> Arrays:
        return {}


def is_equal(answer: Answer, expected: Judgement) -> bool:
    same = (answer.label, answer.exit) == (expected.label, expected.exit)
    return same and np.allclose(
        answer.probabilities, expected.probabilities, rtol=0, atol=TOLERANCE
    )


def list_judgements(
    manifest: Manifest, sections: Mapping[str, Section], images: np.ndarray
) -> list[Judgement]:
    """List what the undistributed model may answer. images: uint8 [devices, height, width, 3].

    It is one judgement, unless features of the edge are so near to zero that the rounding of a
    decoded layer decides on their sign: then one for each combination of their signs.
    """
    hierarchy = manifest.hierarchy
    (edge,) = hierarchy.edges
    devices = run_devices(manifest, sections, images)
    inputs = fuse_features(manifest, [d.features for d in devices], manifest.device_features)
    outputs = sections[edge.id]({"features": inputs})
    unsure = np.flatnonzero(np.abs(outputs["features"]) < ROUNDING)
    judgements = []
    for signs in itertools.product((-1, 1), repeat=len(unsure)):
        features = outputs["features"].copy()
        features.flat[unsure] = signs
        fixed = FixedSection({**outputs, "features": features})
        everyone = hierarchy.everyone
        exits = run_exits(manifest, {**sections, edge.id: fixed}, devices, everyone)
        judgements.append(find_first_sure(manifest, exits, everyone))
    return judgements
