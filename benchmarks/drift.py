"""Drift without labels: false alarms on undisturbed samples, and how soon a camera is found.

    python -m benchmarks.drift --json
    python -m benchmarks.drift --data eth80:PATH --bundle DIR --json

Draws samples of the test split, which training has not seen, and compares them with the bundle's
validation data as the page does: undisturbed ones, with the number of checks that raise an alarm;
then, for each camera and disturbance (rotated by a quarter turn, in the dark, out of focus, turned
away by half a picture), undisturbed samples followed by disturbed ones, with the number of these
until an alarm names the camera.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.harness.report import make_header, make_parser, print_report
from ddnn.adapters.litert import LiteRtSection
from ddnn.errors import ConfigError
from ddnn.exits.drift import WINDOWS, Observation, Reference, find_deviations
from ddnn.exits.inference import run_devices, run_exits
from ddnn.exits.manifest import judge
from ddnn.exits.sample import make_votes
from ddnn.local_site.bundles import prepare_site
from ddnn.runtime.bundle import Bundle, load_bundle

STEP = 20  # samples between two checks of a disturbed camera
CHECK = 100  # of undisturbed ones
BEFORE = max(WINDOWS)  # undisturbed samples before a disturbance
AFTER = max(WINDOWS)

Picture = NDArray[np.uint8]  # [height, width, 3]


def blur(image: Picture) -> Picture:
    radius = image.shape[0] / 16
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


DISTURBANCES: dict[str, Callable[[Picture], Picture]] = {
    "rotated": lambda image: np.ascontiguousarray(np.rot90(image)),
    "dark": lambda image: (image * 0.1).astype(np.uint8),
    "blurred": blur,
    "turned": lambda image: np.roll(image, image.shape[1] // 2, axis=1),
}


def observe(bundle: Bundle, images: NDArray[np.uint8]) -> list[Observation]:
    """What the edge stores of samples. images: uint8 [samples, devices, height, width, 3]."""
    manifest, sections = bundle.manifest, bundle.sections
    hierarchy = manifest.hierarchy
    tier, mask = hierarchy.exits[0], hierarchy.everyone
    seen = []
    for views in images:
        outputs = run_devices(manifest, sections, views)
        first = judge(manifest, tier, run_exits(manifest, sections, outputs, mask)[tier], mask)
        scores = {
            device: output.scores
            for device, output in zip(hierarchy.devices, outputs, strict=True)
            if output.scores is not None
        }
        seen.append(Observation(first.label, 1 - first.eta, make_votes(scores)))
    return seen


def disturb(
    images: NDArray[np.uint8], camera: int, change: Callable[[Picture], Picture]
) -> NDArray[np.uint8]:
    """The same samples with one camera's pictures changed."""
    changed = images.copy()
    changed[:, camera] = [change(image) for image in images[:, camera]]
    return changed


def draw(seen: Sequence[Observation], samples: int, rng: np.random.Generator) -> list[Observation]:
    """Draw samples with replacement."""
    return [seen[row] for row in rng.integers(0, len(seen), samples)]


def list_alarms(reference: Reference, seen: Sequence[Observation]) -> set[str]:
    return {one.voter for one in find_deviations(reference, seen) if one.is_alarm}


def count_false_alarms(
    reference: Reference, seen: Sequence[Observation], samples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Check undisturbed samples every CHECK."""
    drawn = draw(seen, samples, rng)
    ends = range(CHECK, samples + 1, CHECK)
    alarms = [list_alarms(reference, drawn[max(0, end - BEFORE) : end]) for end in ends]
    return {"samples": samples, "checks": len(ends), "alarms": sum(map(bool, alarms))}


def find_delay(
    reference: Reference,
    before: Sequence[Observation],
    after: Sequence[Observation],
    camera: str,
    rng: np.random.Generator,
) -> int | None:
    """How many disturbed samples pass until an alarm names the camera; None: no alarm."""
    drawn = [*draw(before, BEFORE, rng), *draw(after, AFTER, rng)]
    for end in range(BEFORE + STEP, len(drawn) + 1, STEP):
        if camera in list_alarms(reference, drawn[:end]):
            return end - BEFORE
    return None


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", default="", help="data set of the bundle [scenes5]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    parser.add_argument("--samples", type=int, default=10_000, help="undisturbed ones [10000]")
    arguments = parser.parse_args()
    config = prepare_site(arguments.data, bundle=arguments.bundle, seed=arguments.seed)
    bundle = load_bundle(config.bundle, LiteRtSection)
    reference = bundle.manifest.behaviour
    if reference is None:
        raise ConfigError("the bundle is of an earlier version; train it again")
    images = np.load(config.frames / "images.npy", allow_pickle=False)
    rng = np.random.default_rng(arguments.seed)
    undisturbed = observe(bundle, images)
    report = {
        **make_header("drift"),
        "bundle": bundle.id,
        "test_samples": len(images),
        "undisturbed": count_false_alarms(reference, undisturbed, arguments.samples, rng),
        "samples_until_alarm": {},
    }
    for name, change in DISTURBANCES.items():
        delays = report["samples_until_alarm"][name] = {}
        for number, device in enumerate(bundle.manifest.hierarchy.devices):
            disturbed = observe(bundle, disturb(images, number, change))
            delays[device] = find_delay(reference, undisturbed, disturbed, device, rng)
    print_report(report, as_json=arguments.json)


if __name__ == "__main__":
    main()
