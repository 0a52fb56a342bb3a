"""A small hierarchy whose sections are plain functions: fast, deterministic, sensitive to input."""

from __future__ import annotations

import msgspec
import numpy as np

from ddnn.core.files import BundleFile
from ddnn.exits.hierarchy import Hierarchy, make_configuration
from ddnn.exits.inference import find_first_sure, run_devices, run_exits
from ddnn.exits.manifest import Head, Manifest, judge
from ddnn.exits.scores import ScoreFormat

CLASSES = ("car", "bus", "person", "tree")
IMAGE = (8, 8, 3)
FEATURES = (4, 4, 3)
EDGE_FEATURES = (4, 4, 2)
BUNDLE = "ab12cd34"


def make_section(seed: int, inputs: str, shape: tuple[int, ...], features: tuple[int, ...] | None):
    """Make a section of random linear maps: scores and, with `features`, also features."""
    generator = np.random.default_rng(seed)
    size = int(np.prod(shape))
    to_scores = generator.normal(0, 3 / np.sqrt(size), (size, len(CLASSES))).astype(np.float32)
    width = int(np.prod(features)) if features else 1
    to_features = generator.normal(0, 1 / np.sqrt(size), (size, width)).astype(np.float32)
    scale = np.float32(1 / 128) if inputs == "image" else np.float32(1)

    def run(arrays):
        x = arrays[inputs].astype(np.float32).reshape(-1) * scale
        assert x.size == size
        out = {"scores": x @ to_scores}
        if features:
            out["features"] = np.tanh(x @ to_features).reshape(features)
        return out

    return run


def make_hierarchy(letter: str, devices: int = 4, schemes: tuple[str, str] = ("MP", "CC")):
    return make_configuration(letter, devices, exit_scheme=schemes[0], fusion_scheme=schemes[1])


def make_manifest(hierarchy: Hierarchy) -> Manifest:
    generator = np.random.default_rng(5)
    heads = {}
    if hierarchy.exit_scheme == "CC":
        for tier, count in (("local", len(hierarchy.devices)), ("edge", len(hierarchy.edges))):
            if tier in hierarchy.exits:
                weights = generator.normal(size=(count * len(CLASSES), len(CLASSES)))
                heads[tier] = Head(weights.tolist(), [0.0] * len(CLASSES))
    tiers = hierarchy.exits[:-1]
    manifest = Manifest(
        format=1,
        name="made",
        data="made",
        classes=CLASSES,
        image_shape=IMAGE,
        hierarchy=hierarchy,
        score_format=ScoreFormat(),
        thresholds=dict.fromkeys(tiers, 0.0),
        device_features=FEATURES if hierarchy.device_section else IMAGE,
        edge_features=EDGE_FEATURES if hierarchy.edge_section else (),
        sections={},
        golden=BundleFile("", ""),
        heads=heads,
    )
    return choose_thresholds(manifest, make_sections(manifest))


def make_sections(manifest: Manifest):
    hierarchy = manifest.hierarchy

    def compute_input_shape(shape, members):
        return (*shape[:-1], shape[-1] * (members if hierarchy.fusion_scheme == "CC" else 1))

    made = {}
    shape = manifest.device_features
    if hierarchy.device_section:
        for i, device in enumerate(hierarchy.devices):
            made[device] = make_section(i, "image", IMAGE, FEATURES)
    members = len(hierarchy.devices)
    if hierarchy.edge_section:
        for i, group in enumerate(hierarchy.edges):
            made[group.id] = make_section(
                100 + i, "features", compute_input_shape(shape, len(group.devices)), EDGE_FEATURES
            )
        shape, members = EDGE_FEATURES, len(hierarchy.edges)
    made["cloud"] = make_section(200, "features", compute_input_shape(shape, members), None)
    return made


def choose_thresholds(manifest: Manifest, sections, samples: int = 30) -> Manifest:
    """Set each threshold to the median entropy of its exit: every exit answers some samples."""
    generator = np.random.default_rng(17)
    etas = {tier: [] for tier in manifest.thresholds}
    for _ in range(samples):
        images = generator.integers(0, 256, (len(manifest.hierarchy.devices), *IMAGE), np.uint8)
        outputs = run_devices(manifest, sections, images)
        everyone = manifest.hierarchy.everyone
        scores = run_exits(manifest, sections, outputs, everyone)
        for tier in etas:
            etas[tier].append(judge(manifest, tier, scores[tier], everyone).eta)
    middle = {tier: float(np.median(values)) for tier, values in etas.items()}
    return msgspec.structs.replace(manifest, thresholds=middle)


def run_undistributed(manifest: Manifest, sections, images, mask=None):
    """Answer a sample in one process: the decision of the first exit that is sure."""
    mask = manifest.hierarchy.everyone if mask is None else mask
    outputs = run_devices(manifest, sections, images)
    return find_first_sure(manifest, run_exits(manifest, sections, outputs, mask), mask)
