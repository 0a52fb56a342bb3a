"""Builders of a small manifest for any configuration, of its sections, and of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ddnn.core.files import BundleFile
from ddnn.core.section import Arrays
from ddnn.exits.hierarchy import Configuration, Hierarchy, make_configuration
from ddnn.exits.manifest import Head, Manifest
from ddnn.exits.scores import ScoreFormat
from ddnn.exits.timing import Timing
from ddnn.protocol.machine import Captured, Effect, Now, Publish, Received
from ddnn.protocol.messages import Answer, Escalate, Features, Scores, Status, Tensor
from ddnn.protocol.topics import Kind, Topic

CLASSES = ("car", "bus", "person")
IMAGE = (4, 4, 3)
DEVICE_FEATURES = (2, 2, 3)
EDGE_FEATURES = (2, 2, 2)
BUNDLE = "b1"
SITE = "home"
TIMING = Timing(deadline_s=1.0, window_s=0.1, edge_share=0.7, device_share=0.88)
EPOCH_S = 1.78e9
SURE = (20.0, 0.0, 0.0)
UNSURE = (0.0, 0.0, 0.1)

Section = Callable[[Arrays], dict[str, np.ndarray]]


def make_manifest(
    letter: Configuration = "c",
    devices: int = 3,
    *,
    schemes: tuple[Any, Any] = ("MP", "CC"),
    threshold: float = 0.5,
    hierarchy: Hierarchy | None = None,
    **changes: Any,
) -> Manifest:
    hierarchy = hierarchy or make_configuration(
        letter, devices, exit_scheme=schemes[0], fusion_scheme=schemes[1]
    )
    heads = {}
    if hierarchy.exit_scheme == "CC":
        generator = np.random.default_rng(9)
        for tier, count in (("local", len(hierarchy.devices)), ("edge", len(hierarchy.edges))):
            if tier in hierarchy.exits:
                weights = generator.normal(size=(3 * count, 3))
                heads[tier] = Head(weights.tolist(), generator.normal(size=3).tolist())
    fields: dict[str, Any] = {
        "format": 1,
        "name": "made",
        "data": "made",
        "classes": CLASSES,
        "image_shape": IMAGE,
        "hierarchy": hierarchy,
        "score_format": ScoreFormat(),
        "thresholds": dict.fromkeys(hierarchy.exits[:-1], threshold),
        "device_features": DEVICE_FEATURES if hierarchy.device_section else IMAGE,
        "edge_features": EDGE_FEATURES if hierarchy.edge_section else (),
        "sections": {},
        "golden": BundleFile("", ""),
        "heads": heads,
        **changes,
    }
    return Manifest(**fields)


def make_linear_section(
    seed: int, name: str, size: int, features: tuple[int, ...] | None
) -> Section:
    """Make a section of random linear maps of the input: scores and, where given, features."""
    generator = np.random.default_rng(seed)
    to_scores = generator.normal(0, 1.5 / np.sqrt(size), (size, 3)).astype(np.float32)
    width = int(np.prod(features)) if features else 0
    to_features = generator.normal(size=(size, width)).astype(np.float32)

    def run(inputs: Arrays) -> dict[str, np.ndarray]:
        values = np.asarray(inputs[name], np.float32).reshape(-1)
        if name == "image" or values.max(initial=0) > 1:
            values = values / 128 - 1
        out = {"scores": values @ to_scores}
        if features:
            out["features"] = (values @ to_features).reshape(features)
        return out

    return run


def make_sections(manifest: Manifest) -> dict[str, Section]:
    hierarchy = manifest.hierarchy

    def count_inputs(shape: tuple[int, ...], count: int) -> int:
        return int(np.prod(shape)) * (count if hierarchy.fusion_scheme == "CC" else 1)

    made: dict[str, Section] = {}
    if hierarchy.device_section:
        for i, device in enumerate(hierarchy.devices):
            made[device] = make_linear_section(i, "image", int(np.prod(IMAGE)), DEVICE_FEATURES)
    shape, count = manifest.device_features, len(hierarchy.devices)
    if hierarchy.edge_section:
        for i, group in enumerate(hierarchy.edges):
            width = count_inputs(shape, len(group.devices))
            made[group.id] = make_linear_section(50 + i, "features", width, EDGE_FEATURES)
        shape, count = manifest.edge_features, len(hierarchy.edges)
    made["cloud"] = make_linear_section(99, "features", count_inputs(shape, count), None)
    return made


# ------------------------------------------------------------------ hand-driven


def at(time_s: float) -> Now:
    return Now(time_s, EPOCH_S + time_s)


def make_presence(node: str, state: Any = "online", session: int = 1) -> Received:
    role: Any = "cloud" if node == "cloud" else "edge" if node.startswith("edge") else "device"
    return Received(Topic(SITE, Kind.STATUS, node), Status(role, session, state, BUNDLE))


def make_frame(sample: int, time_s: float, label: int | None = None, value: int = 0) -> Captured:
    image = {"image": np.full(IMAGE, value, np.uint8)}
    return Captured(sample, EPOCH_S + time_s, image, label)


def make_tensor(*scores: float, dtype: Any = np.float32) -> Tensor:
    return Tensor.of(np.array(scores, dtype))


def make_scores(
    node: str,
    sample: int,
    values: Any = UNSURE,
    *,
    members: int,
    time_s: float = 0.0,
    bundle: str = BUNDLE,
    tensor: Tensor | None = None,
    kind: Kind = Kind.SCORES,
    wire_bytes: int = 0,
    **fields: Any,
) -> Received:
    message = Scores(
        1, sample, bundle, members, EPOCH_S + time_s, tensor or make_tensor(*values), **fields
    )
    return Received(Topic(SITE, kind, node), message, wire_bytes)


def make_bits(shape: tuple[int, ...] = DEVICE_FEATURES, value: float = 1.0) -> Tensor:
    return Tensor.of(np.full(shape, value, np.float32), bits=True)


def make_features(
    node: str,
    sample: int,
    *,
    members: int,
    time_s: float = 0.0,
    bundle: str = BUNDLE,
    parts: tuple[Tensor, ...] | None = None,
    kind: Kind = Kind.FEATURES,
    wire_bytes: int = 0,
    site: str = SITE,
    **fields: Any,
) -> Received:
    parts = (make_bits(),) if parts is None else parts
    message = Features(1, sample, bundle, members, EPOCH_S + time_s, parts, **fields)
    return Received(Topic(site, kind, node), message, wire_bytes)


def make_escalate(sample: int, tier: Any = "local", bundle: str = BUNDLE) -> Received:
    return Received(Topic(SITE, Kind.ESCALATE), Escalate(1, sample, bundle, tier))


def list_published(effects: list[Effect], kind: Kind) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Publish) and e.topic.kind is kind]


def list_answers(effects: list[Effect]) -> list[Answer]:
    return list_published(effects, Kind.ANSWER)


def make_result(answer: Answer) -> Received:
    return Received(Topic(SITE, Kind.ANSWER, answer.node), answer)
