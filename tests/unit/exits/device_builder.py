"""Builds a device and its events."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddnn.exits.device_exit import FrameJob
from ddnn.exits.device_node import DeviceNode
from ddnn.exits.manifest import Manifest
from ddnn.protocol.machine import (
    Computed,
    Effect,
    Keep,
    Received,
)
from ddnn.protocol.messages import Answer, Answered, PaceCommand
from ddnn.protocol.topics import Kind, Topic
from tests.unit.exits.exit_builders import (
    BUNDLE,
    DEVICE_FEATURES,
    SITE,
    SURE,
    TIMING,
    make_manifest,
)


def outputs(scores: Any = SURE, value: float = 1.0) -> dict[str, np.ndarray]:
    return {
        "scores": np.array(scores, np.float32),
        "features": np.full(DEVICE_FEATURES, value, np.float32),
    }


def make_computed(sample: int, scores: Any = SURE, node: str = "cam2") -> Computed:
    return Computed(FrameJob(node, sample), outputs(scores))


def list_kept(effects: list[Effect]) -> list[Answer]:
    return [e.answer for e in effects if isinstance(e, Keep)]


def make_device(manifest: Manifest | None = None, node: str = "cam2") -> DeviceNode:
    manifest = manifest or make_manifest("c", 3, device_accuracy={"cam2": 0.7})
    return DeviceNode(SITE, node, BUNDLE, manifest, TIMING)


def make_answered(*samples: int, node: str = "edge") -> Received:
    return Received(Topic(SITE, Kind.ANSWERED, node), Answered(1, list(samples)))


def make_pace(share: int, since: int) -> Received:
    return Received(Topic(SITE, Kind.PACE, "edge"), PaceCommand(share, since))
