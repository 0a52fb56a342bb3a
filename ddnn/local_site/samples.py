"""Samples that a bundle has not seen in its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from ddnn.data import (
    RENDERED,
    FolderRequest,
    PairBy,
    Split,
    load,
    load_samples,
    relabel,
    scale_split,
)
from ddnn.errors import ConfigError
from ddnn.exits.manifest import Manifest


def make_folder_request(
    manifest: Manifest, cameras: Mapping[str, str] | None = None
) -> FolderRequest:
    """How the bundle reads folders of images; `cameras`: folders by device, in place of its own."""
    return FolderRequest(
        manifest.hierarchy.devices,
        {**manifest.cameras, **(cameras or {})},
        manifest.classes,
        manifest.preprocessing,
        cast("PairBy", manifest.training.get("pair_by", "name")),
        manifest.image_shape,
    )


def load_test_samples(
    manifest: Manifest,
    data: str,
    objects: list[int] | None = None,
    cameras: Mapping[str, str] | None = None,
) -> Split:
    """The samples to judge a bundle by: of these objects, else those kept out of its training.

    cameras: folders by device, where they have other names than in training

    ConfigError where they do not fit the bundle.
    """
    seed = int(manifest.training.get("data_seed", 0))
    kept = manifest.training.get("objects_test")
    name = data.partition(":")[0]
    folders = make_folder_request(manifest, cameras)
    if cameras and name != "directory":
        raise ConfigError(f"--camera goes with directory, not with {name}")
    if name.startswith("eth80"):
        if objects is None and kept is not None and name == manifest.data:
            objects = [int(kept)]
        split = load_samples(data, objects, seed=seed, folders=folders)
    elif objects is not None:
        raise ConfigError(f"--objects goes with eth80, not with {name}")
    elif name in RENDERED:
        split = load_samples(data, seed=seed, folders=folders)
    else:
        dataset = load(data, seed=seed, folders=folders)
        split = relabel(dataset.test, dataset.classes, manifest.classes, data)
        split = scale_split(name, split, folders)
    check_fit(manifest, data, split)
    return split


def check_fit(manifest: Manifest, data: str, split: Split) -> None:
    """ConfigError where the bundle cannot take the samples of a data set."""
    members = len(manifest.hierarchy.devices)
    if split.images.shape[1] < members or split.images.shape[2:] != manifest.image_shape:
        raise ConfigError(
            f"{data}: views {split.images.shape[1:]} do not fit the bundle, which has {members} "
            f"devices with images {manifest.image_shape}"
        )
    if split.labels.max() >= len(manifest.classes):
        raise ConfigError(
            f"{data}: labels up to {split.labels.max()}, but the bundle knows the classes "
            f"{', '.join(manifest.classes)}; use the data set that it was trained on"
        )


def load_unlabelled(manifest: Manifest, data: str = "") -> Split:
    """Samples whose labels nobody reads, so that folders may have any class names: the validation
    split of rendered data, else all samples.

    data: NAME[:PATH], by default the bundle's own where it is rendered. ConfigError where the
    samples do not fit the bundle.
    """
    name = (data or manifest.data).partition(":")[0]
    if not data and name not in RENDERED:
        raise ConfigError(
            f"bundle {manifest.name} was trained on {name}, which is not rendered; name its file, "
            f"such as --data {name}:PATH"
        )
    seed = int(manifest.training.get("data_seed", 0))
    if name in RENDERED:
        split = load(data or name, seed=seed).validation
    else:
        folders = replace(make_folder_request(manifest), classes=None)
        split = load_samples(data, seed=seed, folders=folders)
    split = replace(split, labels=np.zeros_like(split.labels))
    check_fit(manifest, data or name, split)
    return split
