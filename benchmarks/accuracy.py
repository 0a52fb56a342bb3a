"""Accuracy of the hierarchy on real photographs, over folds, and of undistributed networks.

    python -m benchmarks.accuracy --data eth80:PATH --seed 0 --json

Fold t tests object t of every class, validates on object t+1 and trains on the others. In every
fold three networks are trained with the same images, augmentation and steps:
    hierarchy      configuration (e), binary features between tiers, thresholds as below
    undistributed  the same layers with float features and one exit, all six views together
    undistributed, all exits' losses   the same with every exit's loss (deep supervision)
Data with splits of their own (scenes, scenes5, scenes8, cifar10): one training, measured on the
test split, with the front of thresholds; next to it the undistributed network, to which cameras
send raw pictures and JPEG of several qualities and sizes (benchmarks/rivals.py).
Thresholds and score format of fold t are chosen on the validation data of all folds but the one
that validates on object t: never on test data. Everything of the hierarchy is measured with its
LiteRT sections.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from benchmarks.harness.processes import interrupt_on_sigterm, temporary_directory
from benchmarks.harness.report import make_header, make_parser, print_report
from ddnn.errors import DdnnError
from ddnn.exits import measure as m
from ddnn.exits.hierarchy import Configuration, Hierarchy, make_configuration
from ddnn.exits.manifest import Manifest

MARGIN = 0.005
UNDISTRIBUTED = {
    "undistributed": {"cloud": 1.0},
    "undistributed_deep": {"device": 0.5, "local": 1.0, "edge": 1.0, "cloud": 1.0},
}


def train_fold(data: str, fold: int, seed: int, steps: int | None, out: Path) -> None:
    """Train the networks of one fold; write their scores on validation and test data."""
    from ddnn.adapters.litert import LiteRtSection
    from ddnn.data import load, measure_jpeg_bytes
    from ddnn.runtime.bundle import load_bundle
    from ddnn.training.fit import fit
    from ddnn.training.models import Network
    from ddnn.training.recipes import choose_recipe
    from ddnn.training.train import make_batches, train

    dataset = load(data, objects_test=fold, seed=seed, fine=True)
    settings = choose_recipe(data.partition(":")[0], steps=steps, seed=100 * seed + fold)
    hierarchy = make_hierarchy(settings.schemes)
    started_s = time.monotonic()
    train(
        dataset,
        hierarchy,
        out / f"bundle{fold}",
        LiteRtSection,
        name=f"fold{fold}",
        data="eth80",
        architecture=settings.architecture,
        settings=settings.fit,
    )
    seconds = time.monotonic() - started_s
    bundle = load_bundle(out / f"bundle{fold}", LiteRtSection)
    kept: dict[str, Any] = {
        "seconds": seconds,
        "validation_object": int(dataset.validation.groups[0]),
        "jpeg": float(measure_jpeg_bytes(dataset.test.images).mean()),
        "manifest": msgspec.json.encode(bundle.manifest).decode(),
    }
    for split in (dataset.validation, dataset.test):
        measured = m.measure_scores(
            bundle.manifest, bundle.sections, split.images, split.labels, m.list_member_masks(6)
        )
        kept[f"{split.name}_labels"] = measured.labels
        kept[f"{split.name}_views"] = split.view_labels
        kept[f"{split.name}_devices"] = measured.devices
        for mask, exits in measured.exits.items():
            for tier, scores in exits.items():
                kept[f"{split.name}_{mask}_{tier}"] = scores
    for name, weights in UNDISTRIBUTED.items():
        network = Network(
            hierarchy,
            settings.architecture,
            dataset.image_shape,
            len(dataset.classes),
            binary=False,
        )
        fit_settings = msgspec.structs.replace(settings.fit, weights=weights)
        fit(network, make_batches(dataset, 6), fit_settings)
        for split in (dataset.validation, dataset.test):
            everyone = np.ones((len(split), 6), np.float32)
            scores = network(split.images.astype(np.float32), everyone, training=False)["cloud"]
            kept[f"{split.name}_{name}"] = np.asarray(scores)
    np.savez(out / f"fold{fold}.npz", **kept)


def make_hierarchy(schemes: Any) -> Hierarchy:
    return make_configuration("e", 6, exit_scheme=schemes[0], fusion_scheme=schemes[1])


class Fold:
    """The scores of a fold's networks."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.manifest = msgspec.json.decode(str(self.arrays["manifest"]), type=Manifest)

    def make_measurement(self, split: str) -> m.Measurement:
        masks = m.list_member_masks(6)
        return m.Measurement(
            self.arrays[f"{split}_labels"],
            self.arrays[f"{split}_devices"],
            {
                mask: {
                    tier: self.arrays[f"{split}_{mask}_{tier}"]
                    for tier in self.manifest.hierarchy.exits
                }
                for mask in masks
            },
        )

    def accuracy(self, split: str, name: str) -> float:
        return m.compute_accuracy(self.arrays[f"{split}_{name}"], self.arrays[f"{split}_labels"])


def pool_validation(folds: dict[int, Fold], without: int) -> m.Measurement:
    """The validation data of all folds but the one that validates on object `without`."""
    others = [fold for fold in folds.values() if fold.arrays["validation_object"] != without]
    return m.pool_measurements([fold.make_measurement("validation") for fold in others])


def measure_fold(folds: dict[int, Fold], test: int) -> dict[str, Any]:
    """A fold's figures on its test object."""
    fold = folds[test]
    manifest = fold.manifest
    hierarchy = manifest.hierarchy
    score_format, _, row = m.choose_format(manifest, pool_validation(folds, test), MARGIN)
    measured = m.encode_with_format(manifest, fold.make_measurement("test"), score_format)
    table = m.make_accuracy_table(hierarchy, measured, row.thresholds)
    everyone = table[str(hierarchy.everyone)]
    exits, _ = m.apply_exits(hierarchy, measured.exits[hierarchy.everyone], row.thresholds)
    share = {tier: float(np.mean(exits == i)) for i, tier in enumerate(hierarchy.exits)}
    sent = m.compute_bytes_per_device(manifest, score_format, share["local"])
    jpeg = float(fold.arrays["jpeg"])
    return {
        "test_object": test,
        **{key: 100 * everyone[key] for key in ("local", "edge", "cloud", "overall")},
        **{name: 100 * fold.accuracy("test", name) for name in UNDISTRIBUTED},
        "local_share": 100 * share["local"],
        "bytes": sent,
        "raw_reduction": manifest.raw_bytes / sent,
        "jpeg_reduction": jpeg / sent,
        **{
            f"missing_{k}": 100 * (m.compute_missing_accuracy(hierarchy, table, k) or 0)
            for k in (1, 2, 3)
        },
        "validation_local": 100 * fold.accuracy("validation", f"{hierarchy.everyone}_local"),
        "validation_cloud": 100 * fold.accuracy("validation", f"{hierarchy.everyone}_cloud"),
        "single_camera": 100
        * float(
            np.mean([m.compute_accuracy(measured.devices[:, i], measured.labels) for i in range(6)])
        ),
        "thresholds": row.thresholds,
        "score_type": score_format.type,
        "seconds": float(fold.arrays["seconds"]),
    }


def measure_once(
    data: str,
    seed: int,
    steps: int | None,
    style: Literal["float", "binary"],
    configuration: Configuration,
    distillation: Any,
) -> dict[str, Any]:
    """Train once, measure on the test split."""
    from benchmarks.rivals import find_wins, measure_pictures, train_undistributed
    from ddnn.cli.evaluate import evaluate_bundle
    from ddnn.data import load
    from ddnn.local_site.train import train_bundle
    from ddnn.training.recipes import choose_recipe

    dataset = load(data, seed=seed)
    with temporary_directory() as directory:
        out = directory / "bundle"
        manifest = train_bundle(
            data=data,
            out=out,
            configuration=configuration,
            devices=dataset.views,
            steps=steps,
            seed=seed,
            style=style,
            distillation=distillation,
        )
        report = evaluate_bundle(out, data)
    name = data.partition(":")[0]
    recipe = choose_recipe(name, style=style, steps=steps, seed=seed)
    network = train_undistributed(dataset, manifest.hierarchy, recipe)
    pictures = measure_pictures(network, dataset.test)
    public = f"{name}:PATH" if ":" in data else data
    command = ["--data", public, "--seed", str(seed), "--style", style]
    command += ["--configuration", configuration]
    command += ["--steps", str(steps)] if steps else []
    command += ["--distillation", distillation] if distillation else []
    overall, deepest = report["accuracy"]["overall"], report["accuracy"]["cloud"]
    always = m.compute_bytes_per_device(manifest, manifest.score_format, 0.0)
    always += m.compute_uplink_bytes(manifest)
    total = report["bytes_per_sample_per_device"]
    total += m.compute_uplink_bytes(manifest) * report["exit_share"]["cloud"]
    return {
        **make_header("accuracy", command),
        **report,
        "best_single_camera": max(report["device_accuracy"].values()),
        "cloud_ahead_of_local": deepest - report["accuracy"]["local"],
        "loss_to_best_exit": max(v for v in report["accuracy"].values() if v is not None) - overall,
        "bytes_of_always_to_the_cloud": total / always,
        "undistributed": pictures[0]["accuracy"],
        "pictures": pictures,
        "jpeg_wins": find_wins(report["front"], pictures),
        "schemes": f"{manifest.hierarchy.exit_scheme}-{manifest.hierarchy.fusion_scheme}",
        "training": manifest.training,
        "seconds": manifest.training["seconds"],
    }


def measure_folds(
    data: str, folds: list[int], seed: int, steps: int | None, jobs: int
) -> dict[str, Any]:
    with temporary_directory() as out:

        def train(fold: int) -> None:
            command = [
                sys.executable,
                "-m",
                "benchmarks.accuracy",
                "--data",
                data,
                "--fold",
                str(fold),
                "--seed",
                str(seed),
                "--work",
                str(out),
            ]
            threads = str(max(1, (os.cpu_count() or 1) // jobs))
            environment = {
                **os.environ,
                "TF_NUM_INTRAOP_THREADS": threads,
                "TF_NUM_INTEROP_THREADS": "1",
            }
            if steps:
                command += ["--steps", str(steps)]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=3600, check=False
            )
            if done.returncode:
                raise DdnnError(f"fold {fold}: {done.stderr[-2000:]}")
            print(f"fold {fold} done", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(train, folds))
        trained = {fold: Fold(out / f"fold{fold}.npz") for fold in folds}
        rows = [measure_fold(trained, fold) for fold in folds]
    mean = {
        key: round(float(np.mean([row[key] for row in rows])), 2)
        for key, value in rows[0].items()
        if isinstance(value, float)
    }
    public = f"{data.partition(':')[0]}:PATH"  # where the data are is not part of the result
    return {
        **make_header("accuracy", ["--data", public, "--seed", str(seed)]),
        "margin": MARGIN,
        "mean": mean,
        "loss_with_two_missing": round(mean["overall"] - mean["missing_2"], 2),
        "ahead_of_undistributed": round(mean["overall"] - mean["undistributed"], 2),
        "ahead_of_undistributed_deep": round(mean["overall"] - mean["undistributed_deep"], 2),
        "folds": rows,
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data",
        required=True,
        help="eth80:PATH, eth80-field:PATH, scenes, scenes5, scenes8, cifar10:PATH",
    )
    parser.add_argument("--folds", default="1,2,3,4,5,6,7,8,9", help="test objects")
    parser.add_argument("--steps", type=int, default=None, help="training steps [the recipe's]")
    parser.add_argument("--style", choices=["float", "binary"], default="float", help="not eth80")
    parser.add_argument(
        "--configuration", choices=list("bcdef"), default="e", help="the paper's Fig. 2; not eth80"
    )
    parser.add_argument(
        "--distillation", choices=["off", "deepest", "teacher"], help="not eth80 [the recipe's]"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="folds at a time")
    parser.add_argument("--fold", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    data, seed, steps = arguments.data, arguments.seed, arguments.steps
    if arguments.fold:
        train_fold(data, arguments.fold, seed, steps, arguments.work)
        return
    if data.startswith("eth80"):
        folds = [int(text) for text in arguments.folds.split(",")]
        report = measure_folds(data, folds, seed, steps, arguments.jobs)
    else:
        report = measure_once(
            data, seed, steps, arguments.style, arguments.configuration, arguments.distillation
        )
    print_report(report, as_json=arguments.json)


if __name__ == "__main__":
    main()
