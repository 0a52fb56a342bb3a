"""From a data set to a bundle: what `ddnn train` and `ddnn demo` call."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Hierarchy
from ddnn.exits.manifest import SPARSITY, Manifest
from ddnn.exits.measure import pool
from ddnn.training.bundle import (
    GOLDEN_SAMPLES,
    MARGIN,
    draft,
    export_sections,
    export_sources,
    finish,
    measured_network,
)
from ddnn.training.fit import Batches, Fit, Images, Labels, SplitLike, fit
from ddnn.training.models import Architecture, Network
from ddnn.training.prune import sparsities


class PoolLike(Protocol):
    def draw(
        self, generator: np.random.Generator, samples: int, views: int
    ) -> tuple[Images, Labels]: ...


class DatasetLike(Protocol):
    """See ddnn.data.Dataset."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def views(self) -> int: ...
    @property
    def train(self) -> SplitLike: ...
    @property
    def validation(self) -> SplitLike: ...
    @property
    def augment_pool(self) -> PoolLike | None: ...


Progress = Callable[[str, int, int], None]


def batches_of(dataset: DatasetLike, views: int) -> Batches:
    """Draws training samples: recorded ones, and where there is a pool of views half of the batch
    from random rigs."""
    pool, train = dataset.augment_pool, dataset.train

    def recorded(generator: np.random.Generator, batch: int) -> tuple[Images, Labels, Labels]:
        rows = generator.integers(0, len(train.labels), batch)
        return train.images[rows, :views], train.labels[rows], train.view_labels[rows, :views]

    if pool is None:
        return recorded

    def mixed(generator: np.random.Generator, batch: int) -> tuple[Images, Labels, Labels]:
        images, labels = pool.draw(generator, batch // 2, views)
        seen = images.any(axis=(2, 3, 4))
        view_labels = np.where(seen, labels[:, None], -1).astype(np.int32)
        more = recorded(generator, batch - batch // 2)
        return (
            np.concatenate([images, more[0]]),
            np.concatenate([labels.astype(np.int32), more[1]]),
            np.concatenate([view_labels, more[2]]),
        )

    return mixed


def train(
    dataset: DatasetLike,
    hierarchy: Hierarchy,
    out: Path,
    load_section: Callable[[Path], Section],
    *,
    name: str,
    data: str,
    architecture: Architecture | None = None,
    how: Fit | None = None,
    folds: Sequence[DatasetLike] = (),
    margin: float = MARGIN,
    score_type: str = "auto",
    jpeg_bytes: float | None = None,
    notes: dict[str, str | float | int] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Manifest:
    """Train, export, measure, and write the bundle `out`; its manifest.

    folds: where a validation split is small, thresholds and accuracies are measured on the pooled
    validation splits of these, each by a network of its own that has not seen it.
    progress(what, done, total) is called often.
    """
    architecture, how = architecture or Architecture(), how or Fit()
    members = len(hierarchy.devices)
    if members > dataset.views:
        raise ConfigError(
            f"{members} devices, but {data} has {dataset.views} views; use --devices "
            f"{dataset.views} or fewer"
        )
    started_s = time.monotonic()

    def fitted(part: DatasetLike, what: str) -> tuple[Network, float]:
        network = Network(hierarchy, architecture, part.image_shape, len(part.classes))
        loss = fit(
            network,
            batches_of(part, members),
            how,
            lambda step, steps, loss: progress(f"{what}, loss {loss:.2f}", step, steps),
        )
        return network, loss

    measured = []
    for number, fold in enumerate(folds, 1):
        with tempfile.TemporaryDirectory() as directory:
            network, _ = fitted(fold, f"training fold {number}")
            files = export_sections(network, Path(directory))
            manifest = draft(network, name, data, fold.classes, files)
            measured.append(
                measured_network(manifest, Path(directory), load_section, fold.validation, progress)
            )
    network, loss = fitted(dataset, "training")
    files, sources = export_sections(network, out), export_sources(network, out)
    manifest = draft(network, name, data, dataset.classes, files, sources)
    reached = sparsities(network, how.pruning) if how.pruning else {}
    if not folds:
        measured = [measured_network(manifest, out, load_section, dataset.validation, progress)]
    return finish(
        manifest,
        out,
        load_section,
        pool(measured),
        dataset.validation.images[:GOLDEN_SAMPLES, :members],
        margin=margin,
        score_type=score_type,
        jpeg_bytes=jpeg_bytes,
        training={
            **(notes or {}),
            "steps": how.steps,
            "seed": how.seed,
            "folds": len(folds),
            "loss": round(loss, 4),
            **{f"{SPARSITY}{layer}": round(value, 6) for layer, value in reached.items()},
            "style": architecture.style,
            "architecture": msgspec.json.encode(architecture).decode(),
            "seconds": round(time.monotonic() - started_s, 1),
        },
    )
