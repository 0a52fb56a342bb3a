"""Trained bundles, their cameras' frames and plans: made once and kept under $DDNN_HOME."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import cast

import numpy as np

from ddnn.core.plan import PlanRequest
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Configuration
from ddnn.local_site.planning import parse_workers, plan_bundle
from ddnn.local_site.progress import print_note
from ddnn.local_site.samples import load_test_samples
from ddnn.local_site.site import SiteConfig
from ddnn.protocol.messages import ExitName, Thresholds
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.plans import read_plan

MANIFEST = "manifest.json"


def find_home() -> Path:
    """Where bundles are kept: $DDNN_HOME, or the user's data directory."""
    given = os.environ.get("DDNN_HOME")
    if given:
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "ddnn"


def prepare_site(
    data: str,
    devices: int = 6,
    configuration: Configuration = "e",
    bundle: Path | None = None,
    seed: int = 0,
    *,
    cut: bool = False,
) -> SiteConfig:
    """The bundle (trained where there is none yet) and the test frames for the cameras.

    cut: the edge's section is to be cut; a kept bundle that cannot be cut is trained again
    """
    name = data.partition(":")[0]
    if bundle is None:
        members = 1 if configuration in "bd" else devices
        bundle = find_home() / "bundles" / f"{name}-{configuration}-{members}-seed{seed}"
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
    frames = find_home() / "frames" / f"{name}-{bundle_id}"
    labels = frames / "labels.npy"
    if not labels.exists():
        print_note("preparing the cameras' frames")
        split = load_test_samples(manifest, data)
        frames.mkdir(parents=True, exist_ok=True)
        np.save(frames / "images.npy", split.images)
        np.save(frames / "view_labels.npy", split.view_labels)
        new = frames / "labels.new.npy"
        np.save(new, split.labels)
        new.replace(labels)  # last: it says that the others are complete
    return SiteConfig(manifest, bundle, frames, np.load(labels, allow_pickle=False))


def share_layer(
    config: SiteConfig,
    redundancy: str,
    workers: int = 6,
    tolerate: int | None = None,
    layer: str = "",
) -> None:
    """Let workers compute a layer of the edge; the plan is kept, because planning takes seconds."""
    bundle_id = read_manifest(config.bundle)[1]
    lost = "default" if tolerate is None else tolerate
    name = f"{bundle_id}-{redundancy}-{workers}-{lost}-{layer or 'heaviest'}"
    config.plan = find_home() / "plans" / name
    try:
        plan = read_plan(config.plan, bundle_id)
    except ConfigError:  # none yet, or one of another version
        print_note(f"planning {redundancy} redundancy on {workers} workers")
        devices = parse_workers(str(workers))
        request = PlanRequest(redundancy, devices, tolerate, layer=layer)
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
