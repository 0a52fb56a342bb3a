"""What a bundle knows of its validation data equals what a site would store of these samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift import DISTURBANCES, count_false_alarms, disturb, find_delay, observe
from ddnn.adapters.litert import LiteRtSection
from ddnn.data import load
from ddnn.exits.drift import WINDOWS
from ddnn.runtime.bundle import load_bundle
from tests.parts import need_data


def test_on_rendered_scenes(scenes_bundle: Path) -> None:
    images = load("scenes", samples=(600, 200, 50)).validation.images
    assert_behaviour_equals(scenes_bundle, images)


@pytest.mark.needs_data
def test_on_photographs(eth80_bundle: Path) -> None:
    assert_behaviour_equals(eth80_bundle, load(f"eth80:{need_data('eth80.npz')}").validation.images)


def assert_behaviour_equals(path: Path, images: np.ndarray) -> None:
    bundle = load_bundle(path, LiteRtSection)
    behaviour = bundle.manifest.behaviour
    assert behaviour is not None
    seen = observe(bundle, images)
    answers = np.array([one.label for one in seen])
    certainty = np.array([one.certainty for one in seen])
    assert np.isclose(behaviour.variance, certainty.var(), rtol=1e-4)
    for label, of in enumerate(behaviour.answers):
        assert of.samples == (answers == label).sum()
    assert list(behaviour.devices) == list(bundle.manifest.hierarchy.devices)
    for device, by_class in behaviour.devices.items():
        votes = np.array([one.votes[device] for one in seen])
        for label, of in enumerate(by_class):
            rows = answers == label
            assert of.samples == rows.sum()
            assert of.disagrees == (votes[rows, 0] != label).sum()
            assert of.unsure == (votes[rows, 1] < of.bound).sum()


def test_a_camera_in_the_dark_is_found_on_rendered_scenes(scenes_bundle: Path) -> None:
    bundle = load_bundle(scenes_bundle, LiteRtSection)
    behaviour = bundle.manifest.behaviour
    assert behaviour is not None
    images = load("scenes", samples=(50, 50, 400)).test.images
    rng = np.random.default_rng(0)
    undisturbed = observe(bundle, images)
    assert count_false_alarms(behaviour, undisturbed, 2000, rng)["alarms"] == 0
    dark = observe(bundle, disturb(images, 1, DISTURBANCES["dark"]))
    delay = find_delay(behaviour, undisturbed, dark, "cam2", rng)
    assert delay is not None
    assert delay <= WINDOWS[0]
