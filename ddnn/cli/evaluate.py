"""`ddnn evaluate`: measures a bundle on data, in one process, with the deployed sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ddnn.adapters.command import exit_codes
from ddnn.cli.output import print_report
from ddnn.cli.report import write_report
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Hierarchy
from ddnn.exits.intervals import compute_wilson_interval, count_confusions
from ddnn.exits.measure import (
    SUBSET_SAMPLES,
    Measurement,
    apply_exits,
    compute_bytes_per_device,
    compute_majority,
    compute_missing_accuracy,
    compute_recalls,
    compute_total_bytes,
    find_front,
    list_member_masks,
    make_accuracy_table,
    measure_scores,
    sweep_thresholds,
)
from ddnn.local_site.progress import show_progress
from ddnn.local_site.samples import load_test_samples
from ddnn.local_site.train import parse_cameras
from ddnn.runtime.new_directory import require_writable

if TYPE_CHECKING:
    from ddnn.data import Split
    from ddnn.exits.manifest import Manifest, SweepRow
    from ddnn.runtime.bundle import Bundle

EPILOG = """\b
Examples:
  ddnn evaluate bundle --data scenes5
  ddnn evaluate bundle --data eth80:eth80.npz --objects 9 --json
  ddnn evaluate bundle --data directory:./photos --report report.html
"""
JPEG_SAMPLES = 200
TABLES = ("classes", "confusion", "subsets")


@click.command(epilog=EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data", default=None, help="NAME[:PATH]; by default the bundle's own, where it needs no path."
)
@click.option("--objects", default=None, help="eth80: object numbers, such as 9 or 8,9.")
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    metavar="DEVICE=FOLDER",
    help="directory: the folder of a device, where it has another name than in training.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write the figures as one HTML file, with tables and the confusion matrix.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    bundle: Path,
    data: str | None,
    objects: str | None,
    cameras: tuple[str, ...],
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure accuracy, exits, bytes and the effect of missing members of BUNDLE on test data."""
    with exit_codes():
        if report is not None:
            require_writable(report)
        found = evaluate_bundle(bundle, data, objects, cameras)
        if report is not None:
            write_report(report, bundle.name, found)
        if as_json:
            print_report(found, as_json)
            return
        # The report shows the other tables.
        shown = {key: value for key, value in found.items() if key not in (*TABLES, "front")}
        print_report(shown, as_json)
        print_front(found["front"])


def print_front(front: list[dict[str, Any]]) -> None:
    """Print the thresholds that no others surpass, as a table: accuracy against bytes."""
    click.echo("\nfront on these samples: no other thresholds are more accurate with fewer bytes")
    click.echo(f"{'accuracy':>9}{'bytes':>9}{'to cloud':>9}   exits, thresholds")
    for row in front:
        shares = ", ".join(f"{tier} {share:.0%}" for tier, share in row["exit_share"].items())
        limits = ", ".join(f"{tier} < {value:.2f}" for tier, value in row["thresholds"].items())
        total, own = row["total_bytes_per_sample_per_device"], row["bytes_per_sample_per_device"]
        click.echo(f"{row['accuracy']:9.3f}{total:9.1f}{total - own:9.1f}   {shares}   {limits}")


def evaluate_bundle(
    path: Path, data: str | None, objects: str | None = None, cameras: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Evaluate a bundle's directory; `data` is by default the bundle's own data set."""
    from ddnn.adapters.litert import LiteRtSection
    from ddnn.runtime.bundle import load_bundle

    with show_progress() as progress:
        bundle = load_bundle(path, LiteRtSection)
        split, learned = load_test_samples(
            bundle.manifest,
            data or bundle.manifest.data,
            path,
            _parse_objects(objects),
            parse_cameras(cameras),
        )
        return {**make_report(bundle, split, progress), "samples_learned_from": learned}


def rate_subsets(
    manifest: Manifest, measured: Measurement, table: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """The accuracy of each subset of members, all of them on the same samples."""
    hierarchy = manifest.hierarchy
    rated = {name_members(hierarchy, int(mask)): row["overall"] for mask, row in table.items()}
    if measured.subset is not None:
        everyone = hierarchy.everyone
        exits = {tier: scores[measured.subset] for tier, scores in measured.exits[everyone].items()}
        _, answers = apply_exits(hierarchy, exits, manifest.thresholds)
        right = answers == measured.labels[measured.subset]
        rated[name_members(hierarchy, everyone)] = float(np.mean(right))
    return rated


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
        SUBSET_SAMPLES,
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
    confusion = count_confusions(answers, split.labels, len(manifest.classes))
    right, samples = int(np.trace(confusion)), len(split)
    return {
        "accuracy": {key: everyone.get(key) for key in (*tiers, "overall")},
        "accuracy_interval": compute_wilson_interval(right, samples),
        "majority": compute_majority(split.labels),
        "recall": compute_recalls(answers, split.labels, manifest.classes),
        "recall_interval": {
            name: compute_wilson_interval(int(row[number]), int(row.sum()))
            for number, (name, row) in enumerate(zip(manifest.classes, confusion, strict=True))
            if row.any()
        },
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
        "classes": list(manifest.classes),
        "confusion": confusion.tolist(),
        "subsets": rate_subsets(manifest, measured, table),
        "front": [
            make_front_row(manifest, row)
            for row in find_front(
                sweep_thresholds(
                    manifest,
                    measured.exits[hierarchy.everyone],
                    split.labels,
                    manifest.score_format,
                ),
                lambda row: compute_total_bytes(manifest, row),
            )
        ],
    }


def make_front_row(manifest: Manifest, row: SweepRow) -> dict[str, Any]:
    """A row of the front as --json prints it; total: with a device's part of the hop to the
    cloud."""
    return {
        "thresholds": row.thresholds,
        "accuracy": row.accuracy,
        "exit_share": row.exit_share,
        "bytes_per_sample_per_device": row.bytes_per_sample_per_device,
        "total_bytes_per_sample_per_device": compute_total_bytes(manifest, row),
    }


def name_members(hierarchy: Hierarchy, mask: int) -> str:
    """The devices of a member mask, such as cam1+cam3."""
    return "+".join(device for number, device in enumerate(hierarchy.devices) if mask >> number & 1)


def _parse_objects(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--objects {text!r}: expected numbers such as 9 or 8,9") from None
