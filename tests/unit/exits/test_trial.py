"""Checks fail where the running node would."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from ddnn.core.section import Arrays
from ddnn.errors import ConfigError
from ddnn.exits.manifest import Head, Manifest
from ddnn.exits.scores import ScoreFormat
from ddnn.exits.trial import try_sample
from tests.simulation.small_hierarchy import make_hierarchy, make_manifest, make_sections


def replace(manifest: Manifest, **changes: Any) -> Manifest:
    """The manifest with changes, checked as one that is read."""
    return msgspec.json.decode(
        msgspec.json.encode({**msgspec.to_builtins(manifest), **msgspec.to_builtins(changes)}),
        type=Manifest,
    )


@pytest.mark.parametrize("letter", "abcdef")
@pytest.mark.parametrize("scheme", ["MP", "AP", "CC"])
def test_a_good_bundle_passes_with_all_sections_and_with_one(letter: str, scheme: str) -> None:
    devices = 1 if letter in "bd" else 4
    manifest = make_manifest(make_hierarchy(letter, devices, (scheme, "CC")))
    sections = make_sections(manifest)
    try_sample(manifest, sections)
    for name, section in sections.items():
        try_sample(manifest, {name: section})


CC = make_manifest(make_hierarchy("f", 4, ("CC", "CC")))
CLASSES = len(CC.classes)
ROWS = 4 * CLASSES


def make_head(rows: int, columns: int, bias: int, value: float = 0.5) -> Head:
    return Head([[value] * columns for _ in range(rows)], [0.0] * bias)


@pytest.mark.parametrize(
    "head",
    [
        make_head(ROWS - 1, CLASSES, CLASSES),
        make_head(ROWS, CLASSES + 1, CLASSES),
        make_head(ROWS, CLASSES, CLASSES - 1),
        make_head(0, 0, 0),
        make_head(CLASSES, CLASSES, CLASSES),
    ],
)
def test_a_head_of_another_shape_is_refused(head: Head) -> None:
    with pytest.raises(ConfigError, match=f"head of exit local must be {ROWS} x {CLASSES}"):
        replace(CC, heads={**CC.heads, "local": head})


def test_concatenated_scores_need_a_head() -> None:
    """Without one a label would be the number of a device and a class together."""
    for tier in ("local", "edge"):
        heads = {name: head for name, head in CC.heads.items() if name != tier}
        with pytest.raises(ConfigError, match=f"scores at exit {tier}, and the bundle has no head"):
            replace(CC, heads=heads)
    with pytest.raises(ConfigError, match="head of exit device"):
        replace(CC, heads={**CC.heads, "device": make_head(CLASSES, CLASSES, CLASSES)})


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))]
)
def test_a_grid_of_scores_without_width_is_refused(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="scores as uint8"):
        ScoreFormat("uint8", low, high)
    ScoreFormat("float32", low, high)


class Wrong:
    """A section whose outputs are not as declared."""

    def __init__(self, **outputs: np.ndarray) -> None:
        self.outputs = outputs

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        return self.outputs

    def example(self) -> dict[str, np.ndarray]:
        return {}


FEATURES = np.zeros(CC.device_features, np.float32)


@pytest.mark.parametrize(
    "section",
    [
        Wrong(scores=np.zeros(CLASSES + 1, np.float32), features=FEATURES),
        Wrong(scores=np.full(CLASSES, np.nan, np.float32), features=FEATURES),
        Wrong(features=FEATURES),
        Wrong(scores=np.zeros(CLASSES, np.float32), features=FEATURES[:1]),
    ],
)
def test_a_section_that_gives_something_else_is_found(section: Wrong) -> None:
    with pytest.raises(ConfigError, match="bundle made"):
        try_sample(CC, {"cam1": section})
