"""Distributed = undistributed, on hundreds of test samples, over a real broker."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.data import load
from ddnn.exits.cost import compute_communication_bytes
from ddnn.exits.inference import infer
from ddnn.runtime.bundle import load_bundle
from tests.e2e.conftest import export_frames
from tests.parts import need_data

pytestmark = pytest.mark.timed

SAMPLES = 360  # of each data set


def answers_to(site, samples: int):
    """The stored answers to `samples` consecutive samples, by sample number."""
    wait_until_full(site)
    first = site.tick(0.5) + 1
    wanted = range(first, first + samples)
    while site.tick() < wanted.stop:
        time.sleep(0.05)
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        stored = {s.answer.sample: s.answer for s in site.list_stored(wanted)}
        if len(stored) == samples:
            return stored
        time.sleep(0.2)
    missing = [sample for sample in wanted if sample not in stored]
    pytest.fail(f"no stored answer to {missing} of {wanted}; {site.watcher.pace}")


def wait_until_full(site) -> None:
    """Wait until the answers of a whole second are full: a cloud that was slow to start is
    suspected for a while, and so is a camera."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        now = site.tick(-0.5)
        with site.watcher.lock:
            answers = [site.watcher.answers.get(s) for s in range(now - int(site.rate_hz), now)]
        if all(answer is not None and answer.quality == "full" for answer in answers):
            return
        time.sleep(0.1)
    pytest.fail("no second of full answers within 20 s")


def assert_equal(site, bundle: Path, images: np.ndarray, labels: np.ndarray) -> None:
    loaded = load_bundle(bundle, LiteRtSection)
    manifest = loaded.manifest
    stored = answers_to(site, min(SAMPLES, len(images)))
    exits = set()
    for sample, answer in stored.items():
        expected = infer(manifest, loaded.sections, images[sample % len(images)])
        assert answer.quality == "full", answer
        assert (answer.label, answer.exit) == (expected.label, expected.exit)
        assert answer.probabilities == expected.probabilities
        assert answer.eta == expected.eta
        assert answer.truth == labels[sample % len(images)]
        exits.add(answer.exit)
    assert exits == {"local", "edge", "cloud"}
    members = len(manifest.hierarchy.devices)
    payload = np.mean([answer.payload_bytes / members for answer in stored.values()])
    local = np.mean([answer.exit == "local" for answer in stored.values()])
    filters, outputs = manifest.device_features[-1], int(np.prod(manifest.device_features[:-1]))
    c = compute_communication_bytes(len(manifest.classes), local, filters, outputs)
    assert payload == pytest.approx(c, abs=1e-9)  # the paper's formula, counted on the wire
    assert all(answer.wire_bytes > answer.payload_bytes for answer in stored.values())


def test_scenes(open_site, scenes_bundle, scenes_frames, scenes_split):
    site = open_site(
        scenes_bundle,
        scenes_frames,
        scenes_split.labels,
        rate_hz=25.0,  # which a slow machine can do, so that no tick is shed
        deadline_s=4.0,
        window_s=1.0,
    )
    assert_equal(site, scenes_bundle, scenes_split.images, scenes_split.labels)


@pytest.mark.needs_data
def test_eth80(open_site, eth80_bundle, tmp_path):
    test = load(f"eth80:{need_data('eth80.npz')}").test
    frames = export_frames(test, tmp_path / "frames")
    site = open_site(eth80_bundle, frames, test.labels, rate_hz=15.0, deadline_s=4.0, window_s=1.0)
    assert_equal(site, eth80_bundle, test.images, test.labels)
