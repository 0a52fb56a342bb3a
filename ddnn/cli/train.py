"""`ddnn train`: trains a network on a data set and writes it as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ddnn.adapters.command import app_command
from ddnn.cli.output import print_report
from ddnn.exits.aggregate import Scheme
from ddnn.exits.hierarchy import Configuration
from ddnn.exits.manifest import SPARSITY, Manifest
from ddnn.local_site.train import train_bundle

EPILOG = """\b
Examples:
  ddnn train --data scenes --out bundle
  ddnn train --data eth80:eth80.npz --objects-test 9 --out bundle
  ddnn train --data directory:./photos --devices 3 --configuration c --out bundle
  ddnn train --data directory:./photos --devices 2 --camera cam1=front --pair-by time --out bundle
  ddnn train --edge-dense 2048 --sparsity 0.98 --out bundle
"""


class TrainOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `ddnn train`."""

    data: Annotated[str, msgspec.Meta(description="NAME[:PATH] of the data set.")] = "scenes"
    out: Annotated[str, msgspec.Meta(description="Directory of the bundle to write.")]
    configuration: Annotated[
        Configuration,
        msgspec.Meta(
            description="The paper's Fig. 2: a cloud only, b device+cloud, c devices+cloud, "
            "d device+edge+cloud, e devices+edge+cloud, f devices+edges+cloud."
        ),
    ] = "e"
    devices: Annotated[int, msgspec.Meta(description="How many devices.")] = 6
    edges: Annotated[int, msgspec.Meta(description="How many edges, for f.")] = 2
    exit_scheme: Annotated[
        Scheme | None,
        msgspec.Meta(description="How scores are aggregated [the data set's recipe]."),
    ] = None
    fusion_scheme: Annotated[
        Scheme | None,
        msgspec.Meta(description="How features are fused [the data set's recipe]."),
    ] = None
    style: Annotated[
        Literal["float", "binary"],
        msgspec.Meta(description="Weights; features are binary in both."),
    ] = "float"
    own_weights: Annotated[
        bool, msgspec.Meta(description="Each device gets its own weights instead of shared ones.")
    ] = False
    bits: Annotated[int | None, msgspec.Meta(description="Binary maps (filters) of a device.")] = (
        None
    )
    section: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Your own Keras section for device, edge or cloud.",
            extra={"metavar": "PLACE=MODULE:FUNCTION"},
        ),
    ] = ()
    edge_dense: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1)], ...],
        msgspec.Meta(
            description="A wide dense layer before the edge's scores, a heavy one that redundant "
            "workers can share (ddnn plan); several times for several.",
            extra={"metavar": "UNITS"},
        ),
    ] = ()
    sparsity: Annotated[
        float | None,
        msgspec.Meta(
            description="Set this share of a dense layer's weights to zero, gradually during "
            "training, such as 0.98. To measure the cost, train with the same --seed without it, "
            "and compare validation_accuracy.",
        ),
    ] = None
    prune: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Layer for --sparsity, such as edge/dense1, several times for several [all "
            "dense layers of the edges' sections but those of the scores].",
            extra={"metavar": "EDGE/LAYER"},
        ),
    ] = ()
    scores: Annotated[
        Literal["auto", "float32", "float16", "uint8"],
        msgspec.Meta(description="Format in which scores are sent."),
    ] = "auto"
    margin: Annotated[
        float, msgspec.Meta(description="Loss of validation accuracy that thresholds may cause.")
    ] = 0.005
    objects_test: Annotated[
        int | None, msgspec.Meta(description="eth80: the object to test on.")
    ] = None
    folds: Annotated[
        int | None,
        msgspec.Meta(
            description="eth80: how many more networks are trained, so that thresholds are chosen "
            "on more than one object [3]."
        ),
    ] = None
    steps: Annotated[int | None, msgspec.Meta(description="Training steps.")] = None
    seed: Annotated[
        int,
        msgspec.Meta(
            description="Seed of everything random: the same network again, bit for bit, on the "
            "same machine with the same versions of TensorFlow and NumPy."
        ),
    ] = 0
    camera: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="directory: the folder of a device [that of its name, else the next].",
            extra={"metavar": "DEVICE=FOLDER"},
        ),
    ] = ()
    pair_by: Annotated[
        Literal["name", "time", "order"],
        msgspec.Meta(
            description="directory: pictures of several cameras are one sample by equal names, "
            "close times in their names, or their order."
        ),
    ] = "name"
    fit: Annotated[
        Literal["crop", "stretch"],
        msgspec.Meta(
            description="directory: the section sees the middle of a picture, or all of it, "
            "squeezed into its input. The bundle says so, and every camera does the same."
        ),
    ] = "stretch"
    roi: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="directory: region of interest, as fractions of the picture, of one device "
            "or of all.",
            extra={"metavar": "[DEVICE=]X,Y,W,H"},
        ),
    ] = ()
    json: Annotated[bool, msgspec.Meta(description="Print one JSON object.")] = False


def run(options: TrainOptions) -> None:
    keys = msgspec.structs.asdict(options)
    as_json = keys.pop("json")
    keys.update(out=Path(options.out), sections=keys.pop("section"), cameras=keys.pop("camera"))
    print_report(summarize(train_bundle(**keys)), as_json)


train = app_command(
    TrainOptions,
    run,
    name="train",
    description="Train one network jointly and write it as a bundle.",
    epilog=EPILOG,
    prefix="DDNN_TRAIN_",
)


def summarize(manifest: Manifest) -> dict[str, Any]:
    """The figures of the trained bundle on validation data, as --json prints them."""
    hierarchy = manifest.hierarchy
    everyone = manifest.accuracy[str(hierarchy.everyone)]
    chosen = next((row for row in manifest.sweep if row.thresholds == manifest.thresholds), None)
    return {
        "bundle": manifest.name,
        "validation_accuracy": everyone,
        "validation_majority": manifest.majority,
        "validation_recall": manifest.recall,
        "near_chance": manifest.near_chance,
        "cameras": manifest.cameras,
        "thresholds": manifest.thresholds,
        "scores": manifest.score_format.type,
        "exit_share": chosen.exit_share if chosen else None,
        "bytes_per_sample_per_device": chosen.bytes_per_sample_per_device if chosen else None,
        **{key: value for key, value in manifest.training.items() if key.startswith(SPARSITY)},
        "seconds": manifest.training.get("seconds"),
    }
