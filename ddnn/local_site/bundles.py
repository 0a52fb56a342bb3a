"""Trained bundles, their cameras' frames and plans: made once and kept under $DDNN_HOME."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import numpy as np

from ddnn.core.plan import PlanRequest
from ddnn.data import RENDERED, digest_files
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Configuration
from ddnn.exits.manifest import Manifest
from ddnn.local_site.planning import parse_workers, plan_bundle
from ddnn.local_site.progress import print_note
from ddnn.local_site.samples import load_test_samples
from ddnn.local_site.site import SiteConfig
from ddnn.protocol.messages import ExitName, Thresholds
from ddnn.rooms import needs_data
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.home import find_home
from ddnn.runtime.plans import read_plan

MANIFEST = "manifest.json"
DEFAULT_DATA = "scenes5"
DEVICES = 6


def find_own_data(bundle: Path) -> str:
    """The data set that a bundle was trained on; ConfigError where it is not rendered."""
    manifest = read_manifest(bundle)[0]
    if manifest.data not in RENDERED:
        raise ConfigError(
            f"bundle {manifest.name} was trained on {manifest.data}, which is not rendered; name "
            f"its file, such as --data {manifest.data}:PATH"
        )
    return manifest.data


def prepare_site(
    data: str,
    devices: int | None = None,
    configuration: Configuration | None = None,
    bundle: Path | None = None,
    seed: int = 0,
    *,
    cut: bool = False,
) -> SiteConfig:
    """The bundle (trained where there is none yet) and the test frames for the cameras.

    data: "" is the bundle's own data set where one is given and its data are rendered, else
    DEFAULT_DATA
    devices, configuration: of the bundle that is trained [6, e]; those of a given one are its own
    cut: the edge's section is to be cut; a kept bundle that cannot be cut is trained again

    ConfigError for devices or a configuration that a given bundle does not have.
    """
    data = data or (DEFAULT_DATA if bundle is None else find_own_data(bundle))
    name = data.partition(":")[0]
    # Bundles and frames of other files, or of files that have changed since, are others.
    source = f"-{digest}" if (digest := digest_files(data)) else ""
    if bundle is not None:
        _check_wanted(read_manifest(bundle)[0], devices, configuration)
    else:
        devices, configuration = devices or DEVICES, configuration or "e"
        members = 1 if configuration in "bd" else devices
        key = f"{name}-{configuration}-{members}-seed{seed}{source}"
        bundle = find_home() / "bundles" / key
        if cut and (bundle / MANIFEST).exists() and not read_manifest(bundle)[0].sources:
            print_note("the bundle is of an earlier version, which kept nothing to cut")
            shutil.rmtree(bundle)
        if not (bundle / MANIFEST).exists():
            from ddnn.local_site.train import train_bundle

            print_note(f"no bundle yet: training one into {bundle}")
            bundle.mkdir(parents=True, exist_ok=True)
            train_bundle(
                data=data, out=bundle, configuration=configuration, devices=devices, seed=seed
            )
    manifest, bundle_id = read_manifest(bundle)
    frames = find_home() / "frames" / f"{name}-{bundle_id}{source}"
    labels = frames / "labels.npy"
    if not labels.exists():
        print_note("preparing the cameras' frames")
        split, _ = load_test_samples(manifest, data, bundle)
        frames.mkdir(parents=True, exist_ok=True)
        np.save(frames / "images.npy", split.images)
        np.save(frames / "view_labels.npy", split.view_labels)
        new = frames / "labels.new.npy"
        np.save(new, split.labels)
        new.replace(labels)  # last: it says that the others are complete
    return SiteConfig(manifest, bundle, frames, np.load(labels, allow_pickle=False))


def _check_wanted(
    manifest: Manifest, devices: int | None, configuration: Configuration | None
) -> None:
    """Raise ConfigError unless the bundle is of so many devices and of this configuration."""
    own = len(manifest.hierarchy.devices)
    if devices is not None and devices != own:
        raise ConfigError(
            f"--devices {devices}, but bundle {manifest.name} has {own} devices; leave --devices "
            "out, or train another bundle"
        )
    made = manifest.training.get("configuration")
    if configuration is not None and made not in (None, configuration):
        raise ConfigError(
            f"--configuration {configuration}, but bundle {manifest.name} has configuration "
            f"{made}; leave --configuration out, or train another bundle"
        )


def share_layer(
    config: SiteConfig,
    redundancy: str,
    workers: int = 6,
    tolerate: int | None = None,
    layer: str = "",
    data: str = "",
) -> None:
    """Let workers compute a layer of the edge; the plan is kept, because planning takes seconds.

    data: NAME[:PATH] of what the bundle was trained on, for a room that learns from it.
    """
    bundle_id = read_manifest(config.bundle)[1]
    lost = "default" if tolerate is None else tolerate
    name = f"{bundle_id}-{redundancy}-{workers}-{lost}-{layer or 'heaviest'}"
    config.plan = find_home() / "plans" / name
    try:
        plan = read_plan(config.plan, bundle_id)
    except ConfigError:  # none yet, or one of another version
        print_note(f"planning {redundancy} redundancy on {workers} workers")
        devices = parse_workers(str(workers))
        learned = data if needs_data(redundancy) else ""
        request = PlanRequest(redundancy, devices, tolerate, layer=layer, data=learned)
        plan = plan_bundle(config.bundle, config.plan, request)
    config.edge, config.workers = plan.group, list(plan.placement)


def parse_thresholds(config: SiteConfig, texts: tuple[str, ...]) -> Thresholds | None:
    """The command that sets thresholds such as "local=0"; ConfigError where the bundle has no
    such exit."""
    values: dict[str, float] = {}
    for text in texts:
        tier, _, value = text.partition("=")
        try:
            values[tier] = float(value)
        except ValueError:
            raise ConfigError(f"--threshold {text!r}: expected EXIT=T, such as local=0") from None
    if not values:
        return None
    config.manifest.with_thresholds(values)  # raises where they do not fit
    bundle_id = read_manifest(config.bundle)[1]
    return Thresholds(bundle_id, cast(dict[ExitName, float], values), revision=1)
