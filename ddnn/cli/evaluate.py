"""`ddnn evaluate`: measures a bundle on data, in one process, with the deployed sections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ddnn.adapters.command import exit_codes
from ddnn.cli.output import print_report
from ddnn.errors import ConfigError
from ddnn.exits.measure import (
    apply_exits,
    compute_bytes_per_device,
    compute_majority,
    compute_missing_accuracy,
    compute_recalls,
    list_member_masks,
    make_accuracy_table,
    measure_scores,
)
from ddnn.local_site.progress import show_progress
from ddnn.local_site.samples import load_test_samples
from ddnn.local_site.train import parse_cameras

if TYPE_CHECKING:
    from ddnn.data import Split
    from ddnn.runtime.bundle import Bundle

EPILOG = """\b
Examples:
  ddnn evaluate bundle --data scenes
  ddnn evaluate bundle --data eth80:eth80.npz --objects 9 --json
"""
JPEG_SAMPLES = 200


@click.command(epilog=EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", default=None, help="NAME[:PATH]; by default the bundle's own.")
@click.option("--objects", default=None, help="eth80: object numbers, such as 9 or 8,9.")
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    metavar="DEVICE=FOLDER",
    help="directory: the folder of a device, where it has another name than in training.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    bundle: Path, data: str | None, objects: str | None, cameras: tuple[str, ...], as_json: bool
) -> None:
    """Measure accuracy, exits, bytes and the effect of missing members of BUNDLE on test data."""
    with exit_codes():
        print_report(evaluate_bundle(bundle, data, objects, cameras), as_json)


def evaluate_bundle(
    path: Path, data: str | None, objects: str | None = None, cameras: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Evaluate a bundle's directory; `data` is by default the bundle's own data set."""
    from ddnn.adapters.litert import LiteRtSection
    from ddnn.runtime.bundle import load_bundle

    with show_progress() as progress:
        bundle = load_bundle(path, LiteRtSection)
        split = load_test_samples(
            bundle.manifest,
            data or bundle.manifest.data,
            _parse_objects(objects),
            parse_cameras(cameras),
        )
        return make_report(bundle, split, progress)


def make_report(bundle: Bundle, split: Split, progress: Any) -> dict[str, Any]:
    """Measure the figures that `ddnn evaluate --json` prints."""
    from ddnn.data import measure_jpeg_bytes

    manifest = bundle.manifest
    hierarchy = manifest.hierarchy
    members = len(hierarchy.devices)
    images = split.images[:, :members]
    measured = measure_scores(
        manifest,
        bundle.sections,
        images,
        split.labels,
        list_member_masks(members),
        lambda done, total: progress("evaluating every subset of members", done, total),
    )
    table = make_accuracy_table(hierarchy, measured, manifest.thresholds)
    everyone = table[str(hierarchy.everyone)]
    chosen, answers = apply_exits(
        hierarchy, measured.exits[hierarchy.everyone], manifest.thresholds
    )
    share = {str(tier): float(np.mean(chosen == i)) for i, tier in enumerate(hierarchy.exits)}
    sent = compute_bytes_per_device(manifest, manifest.score_format, share.get("local", 0.0))
    jpeg = float(measure_jpeg_bytes(images[:JPEG_SAMPLES]).mean())
    tiers = ("local", "edge", "cloud")
    return {
        "accuracy": {key: everyone.get(key) for key in (*tiers, "overall")},
        "majority": compute_majority(split.labels),
        "recall": compute_recalls(answers, split.labels, manifest.classes),
        "exit_share": {tier: share.get(tier, 0.0) for tier in tiers},
        "bytes_per_sample_per_device": sent,
        "raw_bytes": manifest.raw_bytes,
        "jpeg_bytes": jpeg,
        "reduction": manifest.raw_bytes / sent,
        "reduction_jpeg": jpeg / sent,
        "missing": {str(k): compute_missing_accuracy(hierarchy, table, k) for k in (1, 2, 3)},
        "thresholds": manifest.thresholds,
        "samples": len(split),
        "device_accuracy": {
            device: float(np.mean(measured.devices[:, i].argmax(-1) == split.labels))
            for i, device in enumerate(hierarchy.devices)
        }
        if hierarchy.device_section
        else {},
        "score_type": manifest.score_format.type,
        "bundle": bundle.id,
    }


def _parse_objects(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--objects {text!r}: expected numbers such as 9 or 8,9") from None
