"""`ddnn train`: from a data set to a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ddnn.adapters.command import exit_codes
from ddnn.errors import ConfigError
from ddnn.exits.aggregate import SCHEMES
from ddnn.exits.hierarchy import CONFIGURATIONS, Configuration
from ddnn.exits.hierarchy import configuration as describe
from ddnn.exits.manifest import SPARSITY

if TYPE_CHECKING:
    from ddnn.data import Dataset
    from ddnn.exits.manifest import Manifest

EPILOG = """\b
Examples:
  ddnn train --data scenes --out bundle
  ddnn train --data eth80:eth80.npz --objects-test 9 --out bundle
  ddnn train --data directory:./photos --devices 3 --configuration c --out bundle
  ddnn train --edge-dense 2048 --sparsity 0.98 --out bundle
"""
JPEG_SAMPLES = 100


@click.command(epilog=EPILOG)
@click.option("--data", default="scenes", show_default=True, help="NAME[:PATH] of the data set.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Bundle to write.")
@click.option(
    "--configuration",
    type=click.Choice(CONFIGURATIONS),
    default="e",
    show_default=True,
    help="The paper's Fig. 2: a cloud only, b device+cloud, c devices+cloud, "
    "d device+edge+cloud, e devices+edge+cloud, f devices+edges+cloud.",
)
@click.option("--devices", default=6, show_default=True, help="How many devices.")
@click.option("--edges", default=2, show_default=True, help="How many edges, for f.")
@click.option(
    "--exit-scheme",
    type=click.Choice(SCHEMES),
    default=None,
    help="How scores are aggregated [the data set's recipe]",
)
@click.option(
    "--fusion-scheme",
    type=click.Choice(SCHEMES),
    default=None,
    help="How features are fused [the data set's recipe]",
)
@click.option(
    "--style",
    type=click.Choice(["float", "binary"]),
    default="float",
    show_default=True,
    help="Weights; features are binary in both.",
)
@click.option("--own-weights", is_flag=True, help="Each device its own weights, not shared ones.")
@click.option("--bits", type=int, default=None, help="Binary maps (filters) of a device.")
@click.option(
    "--section",
    "sections",
    multiple=True,
    metavar="PLACE=MODULE:FUNCTION",
    help="One's own Keras section for device, edge or cloud.",
)
@click.option(
    "--edge-dense",
    type=click.IntRange(1),
    multiple=True,
    metavar="UNITS",
    help="A wide dense layer before the edge's scores, a heavy one that redundant "
    "workers can share (ddnn plan); several times for several.",
)
@click.option(
    "--sparsity",
    type=float,
    default=None,
    help="Set this share of a dense layer's weights to zero, more and more of them while "
    "training, such as 0.98. What it costs: train without it, too, with the same "
    "--seed, and compare validation_accuracy.",
)
@click.option(
    "--prune",
    multiple=True,
    metavar="EDGE/LAYER",
    help="Layer for --sparsity, such as edge/dense1, several times for several [all "
    "dense layers of the edges' sections but those of the scores]",
)
@click.option(
    "--scores",
    type=click.Choice(["auto", "float32", "float16", "uint8"]),
    default="auto",
    show_default=True,
    help="How scores travel.",
)
@click.option(
    "--margin",
    default=0.005,
    show_default=True,
    help="Validation accuracy that thresholds may cost.",
)
@click.option("--objects-test", type=int, default=None, help="eth80: the object to test on.")
@click.option(
    "--folds",
    type=int,
    default=None,
    help="eth80: networks trained beside, so that thresholds are chosen on more than "
    "one object [3]",
)
@click.option("--steps", type=int, default=None, help="Training steps.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def train(**options: Any) -> None:
    """Train one network jointly and write it as a bundle."""
    with exit_codes():
        as_json = options.pop("as_json")
        manifest = train_bundle(**options)
        report = summary(manifest)
        if as_json:
            click.echo(json.dumps(report))
        else:
            for key, value in report.items():
                click.echo(f"{key:28} {value}")


def train_bundle(
    *,
    data: str,
    out: Path,
    configuration: Configuration,
    devices: int,
    edges: int = 2,
    exit_scheme: Any = None,
    fusion_scheme: Any = None,
    style: Any = "float",
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
    from ddnn.cli.progress import show_progress

    hooks = dict(_hook(text) for text in sections)
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
        beside: list[Dataset] = []
        if name.startswith("eth80"):
            notes["objects_test"] = test = int(dataset.test.groups[0])
            count = chosen.folds if folds is None else folds
            others = [*np.unique(dataset.train.groups), *np.unique(dataset.validation.groups)]
            beside = [
                load(data, seed=seed, objects_test=test, objects_validation=int(other), fine=True)
                for other in others[:count]
            ]
            if beside:  # nothing is chosen on the validation object: it is there to learn from
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
            folds=beside,
            architecture=chosen.architecture,
            settings=chosen.fit,
            margin=margin,
            score_type=scores,
            jpeg_bytes=jpeg,
            notes=notes,
            progress=progress,
        )


def summary(manifest: Manifest) -> dict[str, Any]:
    """What training gave, on validation data."""
    hierarchy = manifest.hierarchy
    everyone = manifest.accuracy[str(hierarchy.everyone)]
    chosen = next((row for row in manifest.sweep if row.thresholds == manifest.thresholds), None)
    return {
        "bundle": manifest.name,
        "validation_accuracy": everyone,
        "thresholds": manifest.thresholds,
        "scores": manifest.score_format.type,
        "exit_share": chosen.exit_share if chosen else None,
        "bytes_per_sample_per_device": chosen.bytes_per_sample_per_device if chosen else None,
        **{key: value for key, value in manifest.training.items() if key.startswith(SPARSITY)},
        "seconds": manifest.training.get("seconds"),
    }


def _hook(text: str) -> tuple[str, str]:
    place, equals, hook = text.partition("=")
    if place not in ("device", "edge", "cloud") or not equals or ":" not in hook:
        raise ConfigError(f"--section {text!r}: expected device|edge|cloud=package.module:function")
    return place, hook
