"""`ddnn train`: trains a network on a data set and writes it as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ddnn.adapters.command import app_command
from ddnn.cli.evaluate import evaluate_bundle
from ddnn.cli.output import print_report
from ddnn.cli.report import write_report
from ddnn.errors import ConfigError
from ddnn.exits.aggregate import Scheme
from ddnn.exits.hierarchy import Configuration
from ddnn.exits.manifest import SPARSITY, Manifest
from ddnn.local_site.train import train_bundle
from ddnn.runtime.new_directory import require_writable
from ddnn.training.backbone import PUBLISHED, Backbone, BackboneName

MAX_SEED = 2**32 - 2  # NumPy's is one more, and a training uses the next seed, too

EPILOG = """\b
The first Ctrl-C ends the training and writes the bundle with the weights so far.

\b
Examples:
  ddnn train --data scenes5 --out bundle
  ddnn train --data eth80:eth80.npz --objects-test 9 --out bundle
  ddnn train --data directory:./photos --devices 3 --configuration c --out bundle
  ddnn train --data directory:./photos --devices 2 --camera cam1=front --pair-by time --out bundle
  ddnn train --data directory:./photos --devices 3 --out bundle --report report.html
  ddnn train --data cifar10:DIRECTORY --configuration d --distillation teacher --out bundle
  ddnn train --data directory:./photos --size 64 --backbone mobilenetv3small --out bundle
  ddnn train --edge-dense 2048 --sparsity 0.98 --out bundle
"""


class TrainOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `ddnn train`."""

    data: Annotated[str, msgspec.Meta(description="NAME[:PATH] of the data set.")] = "scenes5"
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
    bits: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=4096)] | None,
        msgspec.Meta(description="Binary maps (filters) of a device."),
    ] = None
    section: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Your own Keras section for device, edge or cloud.",
            extra={"metavar": "PLACE=MODULE:FUNCTION", "names_code": True},
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
        float,
        msgspec.Meta(
            description="Loss of validation accuracy, against the best thresholds, that cheaper "
            "ones may cause.",
            ge=0,
            le=1,
        ),
    ] = 0.005
    objects_test: Annotated[
        int | None, msgspec.Meta(description="eth80: the object to test on.")
    ] = None
    folds: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None,
        msgspec.Meta(
            description="eth80: how many more networks are trained, so that thresholds are chosen "
            "on more than one object [3]."
        ),
    ] = None
    steps: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, msgspec.Meta(description="Training steps.")
    ] = None
    distillation: Annotated[
        Literal["off", "deepest", "teacher"] | None,
        msgspec.Meta(
            description="The exits also learn from the answers of the deepest one, or of a "
            "teacher, an undistributed network that is trained first [the data set's recipe]."
        ),
    ] = None
    seed: Annotated[
        int,
        msgspec.Meta(
            description="Seed of everything random: the same network again, bit for bit, on the "
            "same machine with the same versions of TensorFlow and NumPy.",
            ge=0,
            le=MAX_SEED,
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
        Literal["crop", "stretch"] | None,
        msgspec.Meta(
            description="directory: the section sees the middle of a picture, or all of it, "
            "squeezed into its input. The bundle says so, and every camera does the same [as in "
            "the recording, else stretch]."
        ),
    ] = None
    roi: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="directory: region of interest, as fractions of the picture, of one device "
            "or of all [as in the recording].",
            extra={"metavar": "[DEVICE=]X,Y,W,H"},
        ),
    ] = ()
    size: Annotated[
        Annotated[int, msgspec.Meta(ge=16, le=512)] | None,
        msgspec.Meta(
            description="directory: sides of the sections' inputs in pixels, such as 64 or 96 "
            "[32]. Devices compute longer; they send no more bytes, except with --backbone."
        ),
    ] = None
    resume: Annotated[
        bool,
        msgspec.Meta(
            description="Go on with the training of the same --out and options that was killed."
        ),
    ] = False
    patience: Annotated[
        int,
        msgspec.Meta(
            description="End early when the validation loss was no better in so many checks in "
            "succession, of 25 over all steps, and take the best weights; 0 does all steps.",
            ge=0,
            le=25,
        ),
    ] = 0
    backbone: Annotated[
        BackboneName | None,
        msgspec.Meta(
            description="Make the sections of parts of this network of keras.applications, which "
            "has learned from many other pictures. Goes with --size 64 or more, best with few "
            "pictures of your own."
        ),
    ] = None
    weights: Annotated[
        str,
        msgspec.Meta(
            description="Of the backbone: imagenet, which its publisher offers for download, a "
            "file of weights of the network without its top (.h5), or random.",
            extra={"metavar": "imagenet|FILE|random"},
        ),
    ] = "imagenet"
    fine_tune: Annotated[
        Literal["on", "off"],
        msgspec.Meta(description="Whether training changes the layers of the backbone, too."),
    ] = "on"
    report: Annotated[
        str,
        msgspec.Meta(
            description="Write the figures on the test samples as one HTML file, as "
            "`ddnn evaluate --report` does."
        ),
    ] = ""
    json: Annotated[bool, msgspec.Meta(description="Print one JSON object.")] = False


def run(options: TrainOptions) -> None:
    keys = msgspec.structs.asdict(options)
    as_json, report, out = keys.pop("json"), keys.pop("report"), Path(options.out)
    keys.update(out=out, sections=keys.pop("section"), cameras=keys.pop("camera"))
    weights, frozen = keys.pop("weights"), keys.pop("fine_tune") == "off"
    if not options.backbone and (frozen or weights != PUBLISHED):
        flag = "--fine-tune off" if frozen else f"--weights {weights}"
        raise ConfigError(f"{flag} goes with --backbone, such as mobilenetv3small")
    if options.backbone:
        keys["backbone"] = Backbone(name=options.backbone, weights=weights, frozen=frozen)
    if report:
        require_writable(Path(report))
    manifest = train_bundle(**keys, keeps_interrupted=True)
    print_report(summarize(manifest), as_json)
    if report:
        write_report(Path(report), out.name, evaluate_bundle(out, options.data))


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
