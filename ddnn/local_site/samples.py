"""Samples to judge a bundle by, which its training has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

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
from ddnn.local_site.progress import print_note
from ddnn.runtime.learned import find_learned


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
    bundle: Path,
    objects: list[int] | None = None,
    cameras: Mapping[str, str] | None = None,
) -> tuple[Split, int | None]:
    """The samples to judge a bundle by: of these objects, else those kept out of its training.

    bundle: its directory
    cameras: folders by device, where they have other names than in training

    Splits are drawn again from the files that are there now. What training has seen is left out,
    unless nothing else is there or objects are named. Returns the samples, and how many of them
    training has seen; None where the bundle does not say.

    ConfigError where they do not fit the bundle.
    """
    seed = int(manifest.training.get("data_seed", 0))
    kept = manifest.training.get("objects_test")
    name = data.partition(":")[0]
    folders = make_folder_request(manifest, cameras)
    if cameras and name != "directory":
        raise ConfigError(f"--camera goes with directory, not with {name}")
    if name.startswith("eth80"):
        wanted = [int(kept)] if objects is None and kept is not None else objects
        split = load_samples(data, wanted, seed=seed, folders=folders)
    elif objects is not None:
        raise ConfigError(f"--objects goes with eth80, not with {name}")
    elif name in RENDERED:
        split = load_samples(data, seed=seed, folders=folders)
    else:
        dataset = load(data, seed=seed, folders=folders)
        split = relabel(dataset.test, dataset.classes, manifest.classes, data)
        split = scale_split(name, split, folders)
    check_fit(manifest, data, split)
    seen = _find_seen(manifest, bundle, name, split)
    if seen is None or not seen.any():
        return split, None if seen is None else 0
    count = int(seen.sum())
    if objects is not None or count == len(split):
        print_note(f"{count} of {len(split)} samples were seen in training: figures are too good")
        return split, count
    print_note(f"{count} of {len(split)} samples are left out: training has seen them")
    return split.take(~seen), 0


def _find_seen(
    manifest: Manifest, bundle: Path, name: str, split: Split
) -> NDArray[np.bool_] | None:
    """Whether training has seen each sample; None where the bundle does not say."""
    if name.startswith("eth80") and manifest.data.startswith("eth80"):
        kept = manifest.training.get("objects_test")
        return None if kept is None else split.groups != int(kept)
    return find_learned(bundle, split.images[:, : len(manifest.hierarchy.devices)])


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
        folders = replace(make_folder_request(manifest), classes=None, labelled=False)
        split = load_samples(data, seed=seed, folders=folders)
    split = replace(split, labels=np.zeros_like(split.labels))
    check_fit(manifest, data or name, split)
    return split
