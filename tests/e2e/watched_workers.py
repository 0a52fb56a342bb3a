"""A site whose edge computes a layer on workers, and what its answers must be."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ddnn.adapters.driven_transport import DrivenTransport
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.section import Arrays, Section
from ddnn.exits.hierarchy import Exit
from ddnn.exits.inference import find_first_sure, run_devices, run_exits
from ddnn.exits.manifest import Judgement, Manifest, fuse_features, judge
from ddnn.local_site.site import Site
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import decode_arrived
from ddnn.protocol.messages import Answer, Scores
from ddnn.protocol.offload_state import OffloadState
from ddnn.protocol.topics import Kind, topic_filter
from ddnn.runtime.bundle import load_bundle
from ddnn.runtime.plans import read_plan
from ddnn.runtime.site_identity import Broker
from ddnn.runtime.transport import Arrived, LinkEvent, LinkUp

RATE_HZ = 12.0
DEADLINE_S = 2.5
# Long against what a busy test machine takes. With s gone nothing ever waits for them.
TIMES = {"window_s": 0.5, "deadline_s": DEADLINE_S, "rate_hz": RATE_HZ}
LAYER_TIMEOUT_S = 0.8
FLOW_S = 0.8  # so long samples flow in each state
RECOVER_S = 15.0
STALL_S = 1.0  # so long, in all, a busy machine may stand still
TOLERANCE = 1e-4  # of probabilities
ROUNDING = 1e-5  # of the edge's features, by the decoding of a layer
EVERYONE = [f"cam{i}" for i in range(1, 7)]


class CaptureListener:
    """Listens to the cameras' scores: the samples that any camera has captured."""

    def __init__(self, port: int) -> None:
        self.samples: set[int] = set()
        transport = MqttTransport("capture-listener", [Broker("127.0.0.1", port)])
        self._transport = DrivenTransport(transport)
        self._transport.start(self._take, lambda session: ("ddnn/capture-listener", b""))

    def _take(self, event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            self._transport.subscribe([topic_filter(Kind.SCORES, SITE)])
        elif isinstance(event, Arrived):
            scores = decode_arrived(event.topic, event.payload)[1]
            assert isinstance(scores, Scores)
            self.samples.add(scores.sample)

    def close(self) -> None:
        self._transport.close()


class Workers:
    """A site whose samples all go to the edge, and the answers that are expected of it."""

    def __init__(self, site: Site, images: np.ndarray) -> None:
        loaded = load_bundle(site.config.bundle, LiteRtSection)
        manifest: Manifest = loaded.manifest.with_thresholds({"local": 0.0})
        self.site, self.bundle = site, loaded.id
        self._captures = CaptureListener(site.port)
        self.plan = read_plan(site.config.plan, loaded.id)

        @cache
        def list_expected(index: int) -> list[Judgement]:
            return list_judgements(manifest, loaded.sections, images[index])

        self.list_expected = lambda sample: list_expected(sample % len(images))

    def close(self) -> None:
        self._captures.close()

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
        """The stored answers, one to each sample, each by its deadline.

        Where a busy machine stands still, all cameras may skip the ticks of a moment: what no
        camera captures has no answer.
        """

        def find_missing() -> set[int]:
            return set(samples) - {one.answer.sample for one in self.site.list_stored(samples)}

        def are_captured_stored() -> bool:
            missing = find_missing()
            return len(missing) <= STALL_S * RATE_HZ and not missing & self._captures.samples

        self.wait_until(are_captured_stored, f"an answer to each of {samples}")
        stored = self.site.list_stored(samples)
        for one in stored:
            assert one.first_answered_at_s - one.answer.captured_at_s <= DEADLINE_S, one
            assert not one.answer.late, one
        return [one.answer for one in stored]

    def assert_equal(self, samples: range) -> int:
        """Every answer is what the undistributed model says; all samples went to the edge.

        Returns how many answers there are.
        """
        assert len(samples) >= 5
        answers = self.answers(samples)
        for answer in answers:
            assert (answer.quality, answer.members) == ("full", EVERYONE), answer
            assert answer.exit in ("edge", "cloud")
            expected = self.list_expected(answer.sample)
            assert any(is_equal(answer, judgement) for judgement in expected), (answer, expected)
        return len(answers)


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
    manifest: Manifest,
    sections: Mapping[str, Section],
    images: np.ndarray,
    members: Collection[str] | None = None,
    exit_: Exit | None = None,
) -> list[Judgement]:
    """List what the undistributed model may answer. images: uint8 [devices, height, width, 3].

    members: the devices present, by default all.
    exit_: the exit, by default the first that is sure.

    It is one judgement, unless features of the edge are so near to zero that the rounding of a
    decoded layer decides on their sign: then one for each combination of their signs.
    """
    hierarchy = manifest.hierarchy
    (edge,) = hierarchy.edges
    mask = hierarchy.everyone if members is None else hierarchy.make_mask(members)
    devices = run_devices(manifest, sections, images)
    features = [d.features if mask >> i & 1 else None for i, d in enumerate(devices)]
    inputs = fuse_features(manifest, features, manifest.device_features)
    outputs = sections[edge.id]({"features": inputs})
    unsure = np.flatnonzero(np.abs(outputs["features"]) < ROUNDING)
    judgements = []
    for signs in itertools.product((-1, 1), repeat=len(unsure)):
        signed = outputs["features"].copy()
        signed.flat[unsure] = signs
        fixed = FixedSection({**outputs, "features": signed})
        exits = run_exits(manifest, {**sections, edge.id: fixed}, devices, mask)
        judgements.append(
            find_first_sure(manifest, exits, mask)
            if exit_ is None
            else judge(manifest, exit_, exits[exit_], mask)
        )
    return judgements
