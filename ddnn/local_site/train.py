"""From a data set to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ddnn.errors import ConfigError
from ddnn.exits.aggregate import Scheme
from ddnn.exits.hierarchy import Configuration
from ddnn.exits.hierarchy import make_configuration as describe
from ddnn.local_site.progress import show_progress

if TYPE_CHECKING:
    from ddnn.data import Dataset
    from ddnn.exits.manifest import Manifest

JPEG_SAMPLES = 100


def train_bundle(
    *,
    data: str,
    out: Path,
    configuration: Configuration,
    devices: int,
    edges: int = 2,
    exit_scheme: Scheme | None = None,
    fusion_scheme: Scheme | None = None,
    style: Literal["float", "binary"] = "float",
    own_weights: bool = False,
    bits: int | None = None,
    sections: tuple[str, ...] = (),
    edge_dense: tuple[int, ...] = (),
    sparsity: float | None = None,
    prune: tuple[str, ...] = (),
    scores: str = "auto",
    margin: float = 0.005,
    objects_test: int | None = None,
    folds: int | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> Manifest:
    """Load the data, train with a progress bar, write the bundle."""
    hooks = dict(parse_section(text) for text in sections)
    name = data.partition(":")[0]
    if prune and sparsity is None:
        raise ConfigError(f"--prune {prune[0]} goes with --sparsity, such as --sparsity 0.98")
    if (out / "manifest.json").exists():
        raise ConfigError(f"--out {out} holds a bundle already; remove it or choose another")
    with show_progress() as progress:
        progress("loading data", 0, 1)
        from ddnn.data import load, measure_jpeg_bytes

        fine = name.startswith("eth80")  # photographs that augmentation scales down
        dataset = load(data, seed=seed, objects_test=objects_test, fine=fine)
        jpeg = float(measure_jpeg_bytes(dataset.validation.images[:JPEG_SAMPLES]).mean())
        progress("loading data", 1, 1)
        progress("importing TensorFlow", 0, 1)
        from ddnn.adapters.litert import LiteRtSection
        from ddnn.training.prune import Pruning
        from ddnn.training.recipes import choose_recipe
        from ddnn.training.train import train

        progress("importing TensorFlow", 1, 1)
        chosen = choose_recipe(
            name,
            style=style,
            schemes=(exit_scheme, fusion_scheme),
            share_devices=not own_weights,
            bits=bits,
            sections=hooks,
            steps=steps,
            seed=seed,
            edge_dense=edge_dense,
            pruning=None if sparsity is None else Pruning(sparsity=sparsity, layers=prune),
        )
        hierarchy = describe(
            configuration,
            devices,
            edges=edges,
            exit_scheme=chosen.schemes[0],
            fusion_scheme=chosen.schemes[1],
        )
        notes: dict[str, str | float | int] = {"configuration": configuration, "data_seed": seed}
        further: list[Dataset] = []
        if name.startswith("eth80"):
            notes["objects_test"] = test = int(dataset.test.groups[0])
            count = chosen.folds if folds is None else folds
            others = [*np.unique(dataset.train.groups), *np.unique(dataset.validation.groups)]
            further = [
                load(data, seed=seed, objects_test=test, objects_validation=int(other), fine=True)
                for other in others[:count]
            ]
            if further:  # nothing is chosen on the validation object: training uses it
                dataset = load(data, seed=seed, objects_test=test, train_all=True, fine=True)
        elif folds:
            raise ConfigError(f"--folds goes with eth80, not with {name}")
        return train(
            dataset,
            hierarchy,
            out,
            LiteRtSection,
            name=out.name,
            data=name,
            folds=further,
            architecture=chosen.architecture,
            settings=chosen.fit,
            margin=margin,
            score_type=scores,
            jpeg_bytes=jpeg,
            notes=notes,
            progress=progress,
        )


def parse_section(text: str) -> tuple[str, str]:
    """Place and function of "edge=package.module:function"; ConfigError."""
    place, equals, hook = text.partition("=")
    if place not in ("device", "edge", "cloud") or not equals or ":" not in hook:
        raise ConfigError(f"--section {text!r}: expected device|edge|cloud=package.module:function")
    return place, hook
