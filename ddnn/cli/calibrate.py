"""`ddnn calibrate`: chooses the thresholds of a bundle by a budget, on samples without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from ddnn.adapters.command import exit_codes
from ddnn.cli.output import print_report
from ddnn.errors import ConfigError
from ddnn.exits.budget import choose_reference, choose_within_budgets, compute_cost, parse_budget
from ddnn.exits.measure import measure_scores
from ddnn.local_site.progress import show_progress

EPILOG = """\b
Examples:
  ddnn calibrate bundle --budget bytes=40
  ddnn calibrate bundle --data directory:./photos --budget cloud=0.1 --write
  ddnn calibrate bundle --budget ms=12 --latency local=3 --latency edge=8 --latency cloud=40 --json
"""


@click.command(epilog=EPILOG)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    required=True,
    metavar="UNIT=MOST",
    help="Mean of a sample: bytes=40 (per device, all hops), ms=20 or cloud=0.1 (share of samples "
    "that the cloud answers). Several must all be kept.",
)
@click.option(
    "--data",
    default="",
    help="NAME[:PATH]; by default the bundle's own, if it is rendered. Labels are unused.",
)
@click.option(
    "--latency",
    "latencies",
    multiple=True,
    metavar="EXIT=MS",
    help="For ms: how long an answer of this exit takes, once for each exit.",
)
@click.option(
    "--write", is_flag=True, help="Write the thresholds into the bundle, which changes its id."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def calibrate(
    bundle: Path,
    budgets: tuple[str, ...],
    data: str,
    latencies: tuple[str, ...],
    write: bool,
    as_json: bool,
) -> None:
    """Choose exit thresholds of BUNDLE that keep a budget, on samples without labels.

    Of the thresholds within the budget it takes those whose answers agree most often with those of
    the exit that was the most accurate on the bundle's validation data.
    """
    with exit_codes():
        print_report(calibrate_bundle(bundle, budgets, data, latencies, write=write), as_json)


def calibrate_bundle(
    path: Path,
    budgets: tuple[str, ...],
    data: str = "",
    latencies: tuple[str, ...] = (),
    *,
    write: bool = False,
) -> dict[str, Any]:
    """Choose thresholds for a bundle's directory; the report that --json prints."""
    from ddnn.adapters.litert import LiteRtSection
    from ddnn.local_site.samples import load_unlabelled
    from ddnn.runtime.bundle import load_bundle, write_manifest

    wanted = [parse_budget(text) for text in budgets]
    latency_ms = parse_latencies(latencies)
    with show_progress() as progress:
        bundle = load_bundle(path, LiteRtSection)
        manifest = bundle.manifest
        hierarchy = manifest.hierarchy
        split = load_unlabelled(manifest, data)
        measured = measure_scores(
            manifest,
            bundle.sections,
            split.images[:, : len(hierarchy.devices)],
            split.labels,
            [hierarchy.everyone],
            lambda done, total: progress("running the sections", done, total),
        )
    row = choose_within_budgets(manifest, measured.exits[hierarchy.everyone], wanted, latency_ms)
    if write:
        write_manifest(path, manifest.with_thresholds(row.thresholds))
    return {
        "thresholds": row.thresholds,
        "exit_share": row.exit_share,
        "reference": choose_reference(manifest),
        "agreement": row.accuracy,
        **{b.unit: compute_cost(manifest, row, b.unit, latency_ms) for b in wanted},
        "samples": len(split),
        "written": write,
    }


def parse_latencies(texts: tuple[str, ...]) -> dict[str, float]:
    """Milliseconds by exit, of texts such as "edge=8"; ConfigError."""
    found = {}
    for text in texts:
        tier, _, value = text.partition("=")
        try:
            found[tier] = msgspec.convert(value, float, strict=False)
        except msgspec.ValidationError:
            raise ConfigError(f"--latency {text!r}: expected EXIT=MS, such as edge=8") from None
    return found
