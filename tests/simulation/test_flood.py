"""A camera that publishes nonsense loses its own vote at most: others are answered as before."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.protocol.messages import Features, Scores, Tensor
from ddnn.protocol.topics import Kind, Topic
from tests.simulation.scenario import PERIOD_S, build_scenario
from tests.simulation.small_hierarchy import (
    BUNDLE,
    CLASSES,
    FEATURES,
    make_hierarchy,
    make_manifest,
    make_sections,
)

SAMPLES = 40
PER_TICK = 100


@pytest.mark.parametrize("cam1_works", [True, False])
@pytest.mark.parametrize("numbers", ["anywhere", "future", "next", "near"])
@pytest.mark.parametrize("kind", [Kind.SCORES, Kind.FEATURES])
def test_a_flooding_camera_takes_nobody_elses_samples(
    kind: Kind, numbers: str, cam1_works: bool
) -> None:
    manifest = make_manifest(make_hierarchy("e"))
    scenario = build_scenario(manifest, make_sections(manifest), samples=SAMPLES)
    simulation, random = scenario.simulation, np.random.default_rng(0)
    scores = Tensor.of(np.ones(len(CLASSES), np.float32))
    features = Tensor.of(np.ones(FEATURES, np.float32), bits=True)
    topic = Topic("home", kind, manifest.hierarchy.devices[0])

    def flood(now_sample: int) -> None:
        captured_at_s = simulation.WALL_S + simulation.now_s
        for number in random.integers(0, 2**53, PER_TICK):
            sample = {
                "anywhere": int(number),
                "future": now_sample + 5 + int(number) % 500,
                "next": now_sample + 1 + int(number) % 3,
                "near": max(0, now_sample - 20 + int(number) % 41),
            }[numbers]
            if kind is Kind.SCORES:
                message: Scores | Features = Scores(1, sample, BUNDLE, 1, captured_at_s, scores)
            else:
                message = Features(1, sample, BUNDLE, 1, captured_at_s, (features,))
            simulation.publish(topic, message)

    for n in range(12, 30):
        simulation.at(1.03 + n * PERIOD_S, lambda n=n: flood(n))  # type: ignore[misc]
    if not cam1_works:
        simulation.at(1.35, lambda: simulation.crash(f"home/{topic.node}"))
    scenario.run()
    honest = set(manifest.hierarchy.devices[1:])
    for n in range(SAMPLES):
        answer = simulation.store["home", n]
        assert honest <= set(answer.members), n
        assert answer.latency_s < 0.7
    made_up = [sample for _, sample in simulation.store if not 0 <= sample < SAMPLES]
    assert len(made_up) <= 5


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_a_camera_whose_numbers_are_ahead_takes_nobody_elses_samples(ahead: int) -> None:
    """One message a tick, as of a camera whose clock is ahead."""
    manifest = make_manifest(make_hierarchy("e"))
    scenario = build_scenario(manifest, make_sections(manifest), samples=SAMPLES)
    simulation = scenario.simulation
    device = manifest.hierarchy.devices[0]
    scores = Tensor.of(np.ones(len(CLASSES), np.float32))

    def report(now_sample: int) -> None:
        captured_at_s = simulation.WALL_S + simulation.now_s
        message = Scores(1, now_sample + ahead, BUNDLE, 1, captured_at_s, scores)
        simulation.publish(Topic("home", Kind.SCORES, device), message)

    simulation.at(1.35, lambda: simulation.crash(f"home/{device}"))
    for n in range(12, 36):
        simulation.at(1.03 + n * PERIOD_S, lambda n=n: report(n))  # type: ignore[misc]
    scenario.run()
    honest = set(manifest.hierarchy.devices[1:])
    for n in range(SAMPLES):
        assert honest <= set(simulation.store["home", n].members), n
