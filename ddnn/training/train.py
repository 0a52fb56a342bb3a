"""Training from a data set to a bundle, for `ddnn train` and `ddnn demo`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import msgspec
import numpy as np
import tensorflow as tf

from ddnn.core.preprocessing import Preprocessing
from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Hierarchy
from ddnn.exits.manifest import SPARSITY, Manifest
from ddnn.exits.measure import SUBSET_SAMPLES, pool_measurements
from ddnn.training.bundle import (
    GOLDEN_SAMPLES,
    MARGIN,
    check_export,
    draft_manifest,
    export_sections,
    export_sources,
    finish_bundle,
    measure_network,
)
from ddnn.training.fit import (
    Batches,
    Fit,
    Images,
    Labels,
    SplitLike,
    compute_joint_loss,
    fit,
)
from ddnn.training.keeper import Keeper, Keeping, digest_arrays, make_measure
from ddnn.training.models import Architecture, Network, describe_architecture
from ddnn.training.prune import measure_sparsities
from ddnn.training.statistics import estimate_statistics, improve_statistics


class PoolLike(Protocol):
    """See ddnn.data.ViewPool."""

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
    @property
    def cameras(self) -> Mapping[str, str]: ...


Progress = Callable[[str, int, int], None]


def make_batches(dataset: DatasetLike, views: int) -> Batches:
    """A source of training batches.

    Samples come from the training split and, where the data set has a pool of views, half of each
    batch from random rigs.
    """
    pool, train = dataset.augment_pool, dataset.train

    def draw_recorded(generator: np.random.Generator, batch: int) -> tuple[Images, Labels, Labels]:
        rows = generator.integers(0, len(train.labels), batch)
        return train.images[rows, :views], train.labels[rows], train.view_labels[rows, :views]

    if pool is None:
        return draw_recorded

    def draw_mixed(generator: np.random.Generator, batch: int) -> tuple[Images, Labels, Labels]:
        images, labels = pool.draw(generator, batch // 2, views)
        seen = images.any(axis=(2, 3, 4))
        view_labels = np.where(seen, labels[:, None], -1).astype(np.int32)
        more = draw_recorded(generator, batch - batch // 2)
        return (
            np.concatenate([images, more[0]]),
            np.concatenate([labels.astype(np.int32), more[1]]),
            np.concatenate([view_labels, more[2]]),
        )

    return draw_mixed


def train(
    dataset: DatasetLike,
    hierarchy: Hierarchy,
    out: Path,
    load_section: Callable[[Path], Section],
    *,
    name: str,
    data: str,
    architecture: Architecture | None = None,
    settings: Fit | None = None,
    folds: Sequence[DatasetLike] = (),
    margin: float = MARGIN,
    score_type: str = "auto",
    jpeg_bytes: float | None = None,
    notes: dict[str, str | float | int] | None = None,
    preprocessing: Preprocessing | None = None,
    keeping: Keeping | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Manifest:
    """Train, export and measure a network, and write the bundle `out`; returns its manifest.

    folds: for small validation splits: thresholds and accuracies are measured on the pooled
    validation splits of these data sets, each with a network trained on its training split.
    preprocessing: how the data's pictures became images, as every source must do
    keeping: checkpoints, early stopping, and the user's wish to end a training
    progress(what, done, total) is called after every step.

    Raises ConfigError where the data set has fewer views than the hierarchy has devices; before
    training where `out` has no room or LiteRT cannot run a section; at a loss that is not finite.
    """
    architecture, settings = architecture or Architecture(), settings or Fit()
    keeping = keeping or Keeping()
    members = len(hierarchy.devices)
    if members > dataset.views:
        raise ConfigError(
            f"{members} devices, but {data} has {dataset.views} views; use --devices "
            f"{dataset.views} or fewer"
        )
    started_s = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)

    keepers: dict[str, Keeper] = {}

    def make_keeper(
        network: Network, part: DatasetLike, what: str, chosen: Fit, stop: Callable[[], bool]
    ) -> Keeper:
        split = part.validation

        def compute_loss(images: Any, labels: Any, view_labels: Any) -> Any:
            exits = network(images, tf.ones(tf.shape(view_labels)), training=False)
            return compute_joint_loss(exits, labels, view_labels, network.classes, chosen)

        images, views = split.images[:, :members], split.view_labels[:, :members]
        measure = make_measure(compute_loss, images, split.labels, views)

        def describe() -> str:
            parts = [
                msgspec.json.encode(part).decode() for part in (chosen, architecture, hierarchy)
            ]
            return f"{parts}{digest_arrays(part.train.images, part.train.labels)}"

        keepers[what] = keeping.make_keeper(what, stop, describe, measure)
        return keepers[what]

    def fit_kept(
        network: Network, part: DatasetLike, what: str, chosen: Fit, teacher: Network | None = None
    ) -> float:
        with keeping.open_interrupt() as stop:
            return fit(
                network,
                make_batches(part, members),
                chosen,
                lambda step, steps, loss: progress(f"{what}, loss {loss:.2f}", step, steps),
                make_keeper(network, part, what, chosen, stop),
                teacher,
            )

    def fit_network(part: DatasetLike, what: str) -> tuple[Network, float]:
        # Bit for bit the same network from the same seed on the same machine and versions: the
        # kernels for CPUs sum in an order that the number of threads fixes. TensorFlow's switch
        # for determinism is not needed for it and turns oneDNN off, so that steps take longer.
        keras.utils.set_random_seed(settings.seed)
        network = Network(hierarchy, architecture, part.image_shape, len(part.classes))
        check_export(network, out, load_section)
        teacher = None
        if settings.distillation == "teacher":
            teacher = Network(
                hierarchy, architecture, part.image_shape, len(part.classes), binary=False
            )
            of_teacher = msgspec.structs.replace(
                settings, distillation="off", weights={"cloud": 1.0}, pruning=None
            )
            fit_kept(teacher, part, f"{what} teacher", of_teacher)
        return network, fit_kept(network, part, what, settings, teacher)

    def improve(network: Network, part: DatasetLike) -> bool:
        return improve_statistics(network, make_batches(part, members), part.validation, settings)

    measured = []
    improved: list[bool] = []  # by new statistics of batch normalization
    for number, fold in enumerate(folds, 1):
        with tempfile.TemporaryDirectory() as directory:
            network, _ = fit_network(fold, f"training fold {number}")
            improved.append(improve(network, fold))
            files = export_sections(network, Path(directory))
            manifest = draft_manifest(network, name, data, fold.classes, files)
            measured.append(
                measure_network(manifest, Path(directory), load_section, fold.validation, progress)
            )
    network, loss = fit_network(dataset, "training")
    if not folds:
        improved.append(improve(network, dataset))
    elif sum(improved) * 2 > len(improved):  # its own validation data were trained on
        estimate_statistics(network, make_batches(dataset, members), settings)
    files, sources = export_sections(network, out), export_sources(network, out)
    manifest = msgspec.structs.replace(
        draft_manifest(network, name, data, dataset.classes, files, sources),
        preprocessing=preprocessing or Preprocessing(),
        cameras=dict(dataset.cameras),
    )
    reached = measure_sparsities(network, settings.pruning) if settings.pruning else {}
    if not folds:
        measured = [
            measure_network(
                manifest, out, load_section, dataset.validation, progress, SUBSET_SAMPLES
            )
        ]
    return finish_bundle(
        manifest,
        out,
        load_section,
        pool_measurements(measured),
        dataset.validation.images[:GOLDEN_SAMPLES, :members],
        margin=margin,
        score_type=score_type,
        jpeg_bytes=jpeg_bytes,
        training={
            **(notes or {}),
            "steps": settings.steps,
            "steps_done": keepers["training"].done,
            "seed": settings.seed,
            "folds": len(folds),
            "loss": round(loss, 4),
            "distillation": settings.distillation,
            "statistics_estimated": int(sum(improved) * 2 > len(improved)),
            **{f"{SPARSITY}{layer}": round(value, 6) for layer, value in reached.items()},
            "style": architecture.style,
            "architecture": describe_architecture(architecture),
            "seconds": round(time.monotonic() - started_s, 1),
        },
    )
