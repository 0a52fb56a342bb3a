"""Two runs with one seed show the same frames in the same order, another seed other ones."""

from __future__ import annotations

import time

import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.exits.inference import infer
from ddnn.runtime.bundle import load_bundle

pytestmark = pytest.mark.timed

SAMPLES = 40
RATE_HZ = 20.0
RECOVER_S = 15.0


def show(site) -> dict[int, tuple[int, int, tuple[float, ...]]]:
    """Frame, label and probabilities of the site's first samples, by their place.

    Samples that are shed, where the processes lack the processor, are not among them.
    """
    first = site.choose_first_sample()
    wanted = range(first, first + SAMPLES)
    until_s = time.monotonic() + SAMPLES / RATE_HZ + RECOVER_S
    while True:
        answers = {record.answer.sample: record.answer for record in site.list_stored(wanted)}
        left = [n for n in wanted if n not in answers and site.is_expected(n)]
        if not left and site.tick() > wanted.stop:
            break
        assert time.monotonic() < until_s, f"{len(left)} samples have no answer"
        time.sleep(0.2)
    return {
        sample - first: (site.frame(sample), answer.truth, tuple(answer.probabilities))
        for sample, answer in answers.items()
    }


def test_a_seed_is_an_order(open_site, scenes_bundle, scenes_frames, scenes_split) -> None:
    loaded = load_bundle(scenes_bundle, LiteRtSection)

    def run(seed: int) -> dict[int, tuple[int, int]]:
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
        for frame, truth, probabilities in shown.values():
            assert truth == scenes_split.labels[frame]
            expected = infer(loaded.manifest, loaded.sections, scenes_split.images[frame])
            exact += probabilities == tuple(expected.probabilities)
        assert exact > len(shown) / 2  # the cameras show these very frames; the first may lack one
        return {place: (frame, truth) for place, (frame, truth, _) in shown.items()}

    first, again, other = run(1), run(1), run(2)
    both = first.keys() & again.keys()
    assert len(both) > SAMPLES / 2
    assert [first[place] for place in both] == [again[place] for place in both]
    both = first.keys() & other.keys()
    assert [first[place] for place in both] != [other[place] for place in both]
