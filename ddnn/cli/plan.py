"""`ddnn plan`: share a heavy layer of the edge among workers, with redundancy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec

from ddnn.adapters.command import exit_codes, read_config, schema_options
from ddnn.cli.observer import (
    SITE_KEYS,
    ObserverSettings,
    list_site_options,
    read_observer_settings,
)
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.local_site.planning import (
    REDUNDANCIES,
    parse_workers,
    plan_bundle,
    require_redundancy,
    say_count,
)
from ddnn.local_site.progress import print_note
from ddnn.runtime.bundle import read_manifest

if TYPE_CHECKING:
    from ddnn.coding.deployment import Deployment
    from ddnn.protocol.messages import WorkerOffer

MOST_TIMES = 4  # a worker gets at most so many times the shards of the weakest
FLOAT32_EPSILON = 2.0**-23
WORTH_A_WARNING = 1e-2  # relative error of the layer's outputs
PREFIX = "DDNN_PLAN_"
EPILOG = """\b
Examples:
  ddnn plan --bundle bundle --redundancy coded --workers 6 --tolerate 2
  ddnn plan --bundle bundle --workers pi3,pi4=2,pi5=4 --tolerate 1
  ddnn plan --bundle bundle --workers announced --broker-host edge.lan
  ddnn plan --bundle bundle --redundancy coded-sparse --layer dense1 --workers 12 --tolerate 2

\b
Then, with the bundle on every node:
  python -m edge_app --node edge --bundle bundle --redundancy on
  python -m device_app --node worker1 --bundle bundle --lend on
"""


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `ddnn plan`; those of the broker are the nodes' (see ObserverSettings)."""

    bundle: Annotated[str, msgspec.Meta(description="Bundle whose edge section is shared.")]
    out: Annotated[str, msgspec.Meta(description="Directory to write [BUNDLE/deployment].")] = ""
    redundancy: Annotated[
        str,
        msgspec.Meta(
            description="none: after any loss the edge computes the layer itself; replicate: "
            "copies of every block; coded: only as many shards more as may vanish; coded-sparse: "
            "the same, for layers that were pruned (ddnn train --sparsity).",
            extra={"metavar": f"[{'|'.join(REDUNDANCIES)}]"},
        ),
    ] = "coded"
    workers: Annotated[
        str,
        msgspec.Meta(
            description="6: worker1 to worker6; or names, with =POWER where they differ; or "
            "announced: all nodes that lend at the site now (see --broker-host).",
            extra={"metavar": "N|NAMES|announced"},
        ),
    ]
    tolerate: Annotated[
        int | None,
        msgspec.Meta(
            description="So many workers may vanish, whichever they are [1, with none 0]."
        ),
    ] = None
    edge: Annotated[str, msgspec.Meta(description="Edge whose section is shared [the lead].")] = ""
    layer: Annotated[str, msgspec.Meta(description="Layer to share [the heaviest].")] = ""
    seed: Annotated[int, msgspec.Meta(description="Seed of the code's coefficients.")] = 0
    for_s: Annotated[
        float, msgspec.Meta(description="Listen so long for nodes that lend, at most.")
    ] = 3.0
    json: Annotated[bool, msgspec.Meta(description="Print one JSON object.")] = False

    def __post_init__(self) -> None:
        require_redundancy(self.redundancy)
        if self.workers == "announced":
            if not 0 < self.for_s < 3600:
                raise ConfigError(f"--for-s {self.for_s}: expected above 0, under an hour")
        else:
            parse_workers(self.workers)


OPTIONS = [option for option in list_site_options() if option.name != "config"]
OPTIONS += schema_options(PlanOptions, PREFIX)


@click.command(epilog=EPILOG, params=OPTIONS)
def plan(config: str | None, **flags: Any) -> None:
    """Plan which workers compute which shards of a layer, and write the shards."""
    with exit_codes():
        site_flags = {key: flags.pop(key) for key in SITE_KEYS if key in flags}
        options = read_config(
            PlanOptions,
            flags,
            os.environ,
            config,
            others=ObserverSettings.__struct_fields__,
            prefix=PREFIX,
        )
        bundle = Path(options.bundle)
        out = Path(options.out) if options.out else None
        lends: dict[str, WorkerOffer] = {}
        if options.workers == "announced":
            settings = read_observer_settings(site_flags, config)
            lends = find_workers(settings, options.for_s, read_manifest(bundle)[1])
            power = compare_speeds(lends)
            for name, times in power.items():
                speed = f"{lends[name].flops_per_s / 1e9:.1f} GFLOP/s at its start"
                print_note(f"{name} announces {speed}: power {times:g}")
        else:
            power = parse_workers(options.workers)
        deployment, plan_id = plan_bundle(
            bundle,
            out,
            redundancy=options.redundancy,
            power=power,
            tolerate=options.tolerate,
            edge=options.edge,
            layer=options.layer,
            seed=options.seed,
            memory_bytes={name: lend.memory_bytes for name, lend in lends.items()},
        )
        report = {"plan": plan_id, **summarize(deployment)}
        if options.json:
            click.echo(json.dumps(report))
        else:
            click.echo(format_report(report))
            from ddnn.runtime.deployment import DIRECTORY  # needs scipy, as planning does

            click.echo(
                f"Copy {out or bundle / DIRECTORY} to every node with the bundle; running edges "
                "and workers take it when they are started again.",
                err=True,
            )


def find_workers(settings: ObserverSettings, for_s: float, bundle: str) -> dict[str, WorkerOffer]:
    """The nodes of the site that are there and lend; LinkError without a broker."""
    from ddnn.cli.site_observer import observe_site

    with observe_site(settings) as observer:
        observer.listen(for_s)
        lends = observer.find_offers()
        others = {name for name in lends if observer.find_bundle(name) != bundle}
    for name in sorted(others):
        print_note(f"{name} has bundle {observer.find_bundle(name)}, not {bundle}: left out")
    lends = {name: lend for name, lend in lends.items() if name not in others}
    if not lends:
        raise InfeasiblePlanError(
            f"nobody lends at {settings.broker}, site {settings.site}; start workers with "
            "`python -m device_app --lend on`, or name them with --workers"
        )
    return lends


def compare_speeds(lends: dict[str, WorkerOffer]) -> dict[str, float]:
    """Workers' powers from what they measured at their start: whole, the weakest 1, bounded.

    Equal machines that were busy differ by less than twice: those count as equal.
    """
    speeds = {name: max(lend.flops_per_s, 1.0) for name, lend in lends.items()}
    weakest = min(speeds.values())
    return {
        name: float(min(int(speed / weakest), MOST_TIMES)) for name, speed in sorted(speeds.items())
    }


def summarize(deployment: Deployment) -> dict[str, Any]:
    """What the plan costs and what it covers."""
    from ddnn.coding.coverage import ModelPlan, coverage

    n, k = len(deployment.generator), len(deployment.generator[0])
    cost, certificate = deployment.cost, deployment.certificate
    layer = ModelPlan(deployment.layer, k, (k,))
    extra = n - k
    return {
        "section": deployment.section,
        "layer": deployment.layer,
        "redundancy": deployment.redundancy,
        "code": deployment.code,
        "shards": n,
        "enough": k,
        "tolerate": deployment.tolerate,
        "workers": {name: list(held) for name, held in deployment.workers.items()},
        "hardware": n / k,
        "hardware_by_replication": deployment.tolerate + 1,
        "work": cost.total.flops / cost.whole.flops if cost.whole.flops else None,
        "memory": cost.total.memory_bytes / cost.whole.memory_bytes,
        "coverage_percent": {
            "2MR": coverage(layer, "2MR", extra),
            "CDC+2MR": coverage(layer, "CDC+2MR", extra),
        },
        "per_shard": {
            "memory_bytes": cost.worker.memory_bytes,
            "input_bytes": cost.worker.input_bytes,
            "output_bytes": cost.worker.output_bytes,
            "flops": cost.worker.flops,
        },
        "undivided": {"memory_bytes": cost.whole.memory_bytes, "flops": cost.whole.flops},
        "condition": certificate.worst_condition,
        "relative_error": certificate.worst_condition * FLOAT32_EPSILON,
        "sets_checked": certificate.checked,
        "exhaustive": certificate.exhaustive,
    }


def format_report(report: dict[str, Any]) -> str:
    """The plan for people."""
    per, whole = report["per_shard"], report["undivided"]
    covers, tolerate = report["coverage_percent"], report["tolerate"]
    sets = "all" if report["exhaustive"] else "a sample of"
    lines = [
        f"plan {report['plan']}: layer {report['layer']} of {report['section']}, "
        f"{report['redundancy']} ({report['code']})",
        f"  {say_count(report['shards'], 'shard')} on "
        f"{say_count(len(report['workers']), 'worker')}; "
        + (f"any {say_count(tolerate, 'worker')} may vanish" if tolerate else "all are needed"),
        *(f"    {name:16} {', '.join(map(str, held))}" for name, held in report["workers"].items()),
        f"  hardware         {report['hardware']:.2f}x as many shards as blocks (copies for the "
        f"same: {report['hardware_by_replication']}x)",
        f"  all shards       {report['work'] or 0:.2f}x the work and {report['memory']:.2f}x the "
        "memory of the undivided layer",
        f"  coverage         {covers['CDC+2MR']:.0f} % of the workers may fail alone (with as many "
        f"extra devices as copies {covers['2MR']:.0f} %)",
        f"  per shard        {per['memory_bytes']:,} bytes of memory, {per['flops']:,} flops, "
        f"{per['input_bytes']:,} bytes in, {per['output_bytes']:,} bytes out",
        f"  undivided layer  {whole['memory_bytes']:,} bytes of memory, {whole['flops']:,} flops",
        f"  rounding         decoding errs by at most about {report['relative_error']:.1g} of the "
        f"layer's outputs (condition {report['condition']:.3g}; {sets} "
        f"{say_count(report['sets_checked'], 'loss', 'losses')} tried)",
    ]
    if report["relative_error"] > WORTH_A_WARNING:
        lines.append(
            "  warning          answers may differ for rounding: use fewer workers, a smaller "
            "--tolerate or --redundancy replicate"
        )
    return "\n".join(lines)
