"""A whole site as real processes, with a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.broker import free_port
from ddnn.data import Split, load_samples
from ddnn.local_site.bundles import parse_thresholds
from ddnn.local_site.site import Site, SiteConfig
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.plans import read_plan
from tests.conftest import make_once
from tests.parts import need_mosquitto


@pytest.fixture(scope="session")
def scenes_split() -> Split:
    """The whole test split of scenes."""
    return load_samples("scenes")


def export_frames(split: Split, path: Path) -> Path:
    path.mkdir(parents=True)
    np.save(path / "images.npy", split.images)
    np.save(path / "view_labels.npy", split.view_labels)
    return path


@pytest.fixture(scope="session")
def scenes_frames(scenes_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once(
        tmp_path_factory, "scenes-frames", lambda path: export_frames(scenes_split, path)
    )


@pytest.fixture
def open_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """open_site(bundle, frames, labels, broker, **options) starts a site; all end with the test.

    plan: the directory of a plan by which workers compute a layer of the edge; thresholds: such as
    ("local=0",).
    """
    opened: list[Site] = []

    def start(
        bundle: Path,
        frames: Path,
        labels,
        broker: str = "mosquitto",
        *,
        plan: Path | None = None,
        thresholds: tuple[str, ...] = (),
        **options,
    ) -> Site:
        if broker == "mosquitto":
            need_mosquitto()
        manifest, bundle_id = read_manifest(bundle)
        config = SiteConfig(manifest, bundle, frames, labels, plan)
        config.thresholds = parse_thresholds(config, thresholds)
        if plan is not None:
            planned = read_plan(plan, bundle_id)
            config.edge, config.workers = planned.group, list(planned.placement)
        state = tmp_path / f"site{len(opened)}"
        site = Site(config, broker, state, http_port=free_port(), **options)
        opened.append(site)
        site.state.mkdir(exist_ok=True)
        site.start()
        return site

    yield start
    for site in opened:
        site.close()
