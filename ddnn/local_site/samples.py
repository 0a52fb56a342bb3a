"""Samples that a bundle has not seen in its training."""

from __future__ import annotations

from ddnn.data import Split, load, load_samples
from ddnn.errors import ConfigError
from ddnn.exits.manifest import Manifest


def load_test_samples(manifest: Manifest, data: str, objects: list[int] | None = None) -> Split:
    """The samples to judge a bundle by: of these objects, else those kept out of its training.

    ConfigError where they do not fit the bundle.
    """
    seed = int(manifest.training.get("data_seed", 0))
    kept = manifest.training.get("objects_test")
    name = data.partition(":")[0]
    if name.startswith("eth80"):
        if objects is None and kept is not None and name == manifest.data:
            objects = [int(kept)]
        split = load_samples(data, objects, seed=seed)
    elif objects is not None:
        raise ConfigError(f"--objects goes with eth80, not with {name}")
    elif name == "scenes":
        split = load_samples(data, seed=seed)
    else:
        split = load(data, seed=seed).test
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
