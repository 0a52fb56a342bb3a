"""Two runs with one seed show the same frames in the same order, another seed other ones."""

from __future__ import annotations

import time

import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.exits.inference import infer
from ddnn.runtime.bundle import load_bundle

pytestmark = pytest.mark.priority

SAMPLES = 40
RATE_HZ = 20.0
RECOVER_S = 15.0


def show(site) -> list[tuple[int, int, tuple[float, ...]]]:
    """Frame, label and probabilities of each of the site's first samples."""
    first = site.choose_first_sample()
    wanted = range(first, first + SAMPLES)
    until_s = time.monotonic() + SAMPLES / RATE_HZ + RECOVER_S
    while len(stored := site.stored(wanted)) < SAMPLES:
        assert time.monotonic() < until_s, f"{SAMPLES - len(stored)} samples have no answer"
        time.sleep(0.2)
    answers = [record.answer for record in stored]
    return [(site.frame(a.sample), a.truth, tuple(a.probabilities)) for a in answers]


def test_a_seed_is_an_order(open_site, scenes_bundle, scenes_frames, scenes_split) -> None:
    loaded = load_bundle(scenes_bundle, LiteRtSection)

    def run(seed: int) -> list[tuple[int, int]]:
        site = open_site(
            scenes_bundle,
            scenes_frames,
            scenes_split.labels,
            rate_hz=RATE_HZ,
            deadline_s=2.5,
            window_s=0.5,
            seed=seed,
        )
        shown = show(site)
        site.close()
        exact = 0
        for frame, truth, probabilities in shown:
            assert truth == scenes_split.labels[frame]
            expected = infer(loaded.manifest, loaded.sections, scenes_split.images[frame])
            exact += probabilities == tuple(expected.probabilities)
        assert exact > SAMPLES / 2  # the cameras show these very frames; the first may lack one
        return [(frame, truth) for frame, truth, _ in shown]

    first, again, other = run(1), run(1), run(2)
    assert first == again
    assert first != other
