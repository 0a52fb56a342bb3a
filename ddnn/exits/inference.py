"""Runs the whole hierarchy in one process: the reference that the distributed system must equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.bits import packed_bytes
from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Exit
from ddnn.exits.manifest import (
    Judgement,
    Manifest,
    aggregate_scores,
    fuse_features,
    judge,
    list_cloud_parts,
)


class DeviceOutput(msgspec.Struct, frozen=True):
    """A device's outputs as a receiver decodes them: scores [classes], features of -1 and +1."""

    scores: NDArray[np.float32] | None
    features: NDArray[Any]


def compute_signs(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute -1 or +1 for each value, with +1 for 0, as packing and unpacking do."""
    return np.where(values >= 0, np.float32(1), np.float32(-1))


def run_devices(
    manifest: Manifest, sections: Mapping[str, Section], images: NDArray[np.uint8]
) -> list[DeviceOutput]:
    """Run every device's section on its view. images: uint8 [devices, height, width, 3]."""
    outputs = []
    for device, image in zip(manifest.hierarchy.devices, images, strict=True):
        if not manifest.hierarchy.device_section:
            outputs.append(DeviceOutput(None, image))
            continue
        out = sections[device]({"image": image})
        wire = manifest.score_format.encode(out["scores"])
        outputs.append(
            DeviceOutput(manifest.score_format.decode(wire), compute_signs(out["features"]))
        )
    return outputs


def run_exits(
    manifest: Manifest,
    sections: Mapping[str, Section],
    devices: list[DeviceOutput],
    mask: int,
) -> dict[Exit, NDArray[np.float32]]:
    """Compute every exit's class scores with the devices of `mask` present."""
    hierarchy = manifest.hierarchy
    present = [bool(mask >> i & 1) for i in range(len(devices))]
    exits: dict[Exit, NDArray[np.float32]] = {}
    if hierarchy.local_exit:
        parts = [d.scores if here else None for d, here in zip(devices, present, strict=True)]
        exits["local"] = aggregate_scores(manifest, "local", parts)
    features = {
        node: d.features if here else None
        for node, d, here in zip(hierarchy.devices, devices, present, strict=True)
    }
    if hierarchy.edge_section:
        edge_scores: list[NDArray[np.float32] | None] = []
        edge_features: dict[str, NDArray[Any] | None] = {}
        for group in hierarchy.edges:
            own = [features[device] for device in group.devices]
            edge_features[group.id] = None
            edge_scores.append(None)
            if any(part is not None for part in own):
                fused = fuse_features(manifest, own, manifest.device_features)
                out = sections[group.id]({"features": fused})
                edge_scores[-1] = out["scores"]
                edge_features[group.id] = compute_signs(out["features"])
        exits["edge"] = aggregate_scores(manifest, "edge", edge_scores)
        features = edge_features
    nodes, shape = list_cloud_parts(manifest)
    fused = fuse_features(manifest, [features[node] for node in nodes], shape)
    exits["cloud"] = sections["cloud"]({"features": fused})["scores"]
    return exits


def find_first_sure(
    manifest: Manifest, scores: Mapping[Exit, NDArray[np.float32]], mask: int
) -> Judgement:
    """Find the shallowest exit that is sure, which decides; the deepest exit is always sure."""
    for tier in manifest.hierarchy.exits:
        judgement = judge(manifest, tier, scores[tier], mask)
        if judgement.sure:
            return judgement
    raise AssertionError("the deepest exit is always sure")


def count_payload_bytes(manifest: Manifest, exit_: Exit, mask: int) -> int:
    """Count the bytes of the devices of `mask` for a sample answered at `exit_` (notes A6)."""
    members = mask.bit_count()
    if not manifest.hierarchy.device_section:
        return members * manifest.raw_bytes
    traffic = len(manifest.classes) * manifest.score_format.bytes_per_score
    if exit_ != "local":
        traffic += packed_bytes(int(np.prod(manifest.device_features)))
    return members * traffic


def infer(
    manifest: Manifest,
    sections: Mapping[str, Section],
    images: NDArray[np.uint8],
    members: Iterable[str] | None = None,
) -> Judgement:
    """Answer one sample in this process. images: uint8 [devices, height, width, 3].

    members: the devices that contribute; None: all. Raises ConfigError for a name that is none.
    """
    hierarchy = manifest.hierarchy
    present = hierarchy.devices if members is None else tuple(members)
    if unknown := set(present) - {*hierarchy.devices}:
        raise ConfigError(
            f"members {', '.join(sorted(unknown))}: expected some of {', '.join(hierarchy.devices)}"
        )
    mask = hierarchy.make_mask(present)
    outputs = run_devices(manifest, sections, images)
    return find_first_sure(manifest, run_exits(manifest, sections, outputs, mask), mask)
