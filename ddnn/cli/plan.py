"""`ddnn plan`: share a heavy layer of the edge among workers, with redundancy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddnn.adapters.command import exit_codes
from ddnn.cli.observer import ObserverSettings, list_site_options, read_observer_settings
from ddnn.core.ids import require_id
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.runtime.bundle import read_manifest

if TYPE_CHECKING:
    from ddnn.coding.deployment import Deployment
    from ddnn.protocol.messages import WorkerOffer

REDUNDANCIES = ("none", "replicate", "coded", "coded-sparse")
MOST_TIMES = 4  # a worker gets at most so many times the shards of the weakest
FLOAT32_EPSILON = 2.0**-23
WORTH_A_WARNING = 1e-2  # relative error of the layer's outputs
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


@click.command(
    epilog=EPILOG,
    params=list_site_options(),
)
@click.option(
    "--bundle",
    required=True,
    type=click.Path(path_type=Path),
    help="Bundle whose edge section is shared.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory to write [BUNDLE/deployment].",
)
@click.option(
    "--redundancy",
    type=click.Choice(REDUNDANCIES),
    default="coded",
    show_default=True,
    help="none: after any loss the edge computes the layer itself; replicate: copies of "
    "every block; coded: only as many shards more as may vanish; coded-sparse: the "
    "same, for layers that were pruned (ddnn train --sparsity).",
)
@click.option(
    "--workers",
    required=True,
    metavar="N|NAMES|announced",
    help="6: worker1 to worker6; or names, with =POWER where they differ; or announced: "
    "all nodes that lend at the site now (see --broker-host).",
)
@click.option(
    "--tolerate",
    default=None,
    type=int,
    help="So many workers may vanish, whichever they are. [1, with none 0]",
)
@click.option("--edge", default="", help="Edge whose section is shared [the lead].")
@click.option("--layer", default="", help="Layer to share [the heaviest].")
@click.option("--seed", default=0, show_default=True, help="Seed of the code's coefficients.")
@click.option(
    "--for-s", default=3.0, show_default=True, help="Listen so long for nodes that lend, at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    bundle: Path,
    out: Path | None,
    redundancy: Any,
    workers: str,
    tolerate: int | None,
    edge: str,
    layer: str,
    seed: int,
    for_s: float,
    as_json: bool,
    **keys: Any,
) -> None:
    """Plan which workers compute which shards of a layer, and write the shards."""
    with exit_codes():
        file = keys.pop("config")
        lends: dict[str, WorkerOffer] = {}
        if workers == "announced":
            lends = announced(read_observer_settings(keys, file), for_s, read_manifest(bundle)[1])
            power = powers(lends)
            for name, times in power.items():
                speed = f"{lends[name].flops_per_s / 1e9:.1f} GFLOP/s at its start"
                click.echo(f"ddnn: {name} announces {speed}: power {times:g}", err=True)
        else:
            power = named(workers)
        deployment, plan_id = plan_bundle(
            bundle,
            out,
            redundancy=redundancy,
            power=power,
            tolerate=tolerate,
            edge=edge,
            layer=layer,
            seed=seed,
            memory_bytes={name: lend.memory_bytes for name, lend in lends.items()},
        )
        report = {"plan": plan_id, **summary(deployment)}
        if as_json:
            click.echo(json.dumps(report))
        else:
            click.echo(text(report))
            from ddnn.runtime.deployment import DIRECTORY  # needs scipy, as planning does

            click.echo(
                f"Copy {out or bundle / DIRECTORY} to every node with the bundle; running edges "
                "and workers take it when they are started again.",
                err=True,
            )


def plan_bundle(
    bundle: Path,
    out: Path | None,
    *,
    redundancy: Any,
    power: Mapping[str, float],
    tolerate: int | None = None,
    edge: str = "",
    layer: str = "",
    seed: int = 0,
    memory_bytes: Mapping[str, int] | None = None,
) -> tuple[Deployment, str]:
    """Plan with progress bars; the plan and its id. tolerate: by default 1, with none 0."""
    from ddnn.cli.progress import show_progress

    if tolerate is None:
        tolerate = 0 if redundancy == "none" else 1
    if tolerate < 0:
        raise ConfigError(f"--tolerate {tolerate}: expected 0 or more")
    if 0 < len(power) <= tolerate and redundancy != "none":
        raise InfeasiblePlanError(
            f"--tolerate {tolerate} of {counted(len(power), 'worker')} leaves none to compute the "
            "layer; use more workers or a smaller --tolerate"
        )
    with show_progress() as progress:
        progress("importing TensorFlow", 0, 1)
        try:
            import scipy  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"ddnn plan needs scipy ({error}): pip install 'ddnn[train,coding]'"
            ) from None
        from ddnn.adapters.shards import load_section, write_matrix
        from ddnn.runtime.deployment import DIRECTORY
        from ddnn.training.plan import Wanted, make_plan

        progress("importing TensorFlow", 1, 1)
        wanted = Wanted(redundancy, power, tolerate, edge, layer, seed, memory_bytes or {})
        return make_plan(
            bundle, out or bundle / DIRECTORY, wanted, load_section, write_matrix, progress
        )


def named(text: str) -> dict[str, float]:
    """The workers of --workers and their powers: "6", or "pi3,pi4=2"."""
    if text.isdecimal():
        return {f"worker{i + 1}": 1.0 for i in range(int(text))}
    if get_close_matches(text, ["announced"]):
        raise ConfigError(f"--workers {text!r}: did you mean announced?")
    power: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        require_id(name, "--workers: worker")
        if name in power:
            raise ConfigError(f"--workers: {name} is named twice")
        try:
            power[name] = float(value or 1)
        except ValueError:
            raise ConfigError(f"--workers {part!r}: expected NAME=POWER, such as pi4=2") from None
        if not 0 < power[name] < 1e6:
            raise ConfigError(f"--workers {part!r}: the power must be above 0")
    return power


def announced(settings: ObserverSettings, for_s: float, bundle: str) -> dict[str, WorkerOffer]:
    """The nodes of the site that are there and lend; LinkError without a broker."""
    from ddnn.cli.site_observer import observe_site

    if not 0 < for_s < 3600:
        raise ConfigError(f"--for-s {for_s}: expected above 0, under an hour")
    with observe_site(settings) as observer:
        observer.listen(for_s)
        lends = observer.find_offers()
        others = {name for name in lends if observer.find_bundle(name) != bundle}
    for name in sorted(others):
        text = f"ddnn: {name} has bundle {observer.find_bundle(name)}, not {bundle}: left out"
        click.echo(text, err=True)
    lends = {name: lend for name, lend in lends.items() if name not in others}
    if not lends:
        raise InfeasiblePlanError(
            f"nobody lends at {settings.broker}, site {settings.site}; start workers with "
            "`python -m device_app --lend on`, or name them with --workers"
        )
    return lends


def powers(lends: dict[str, WorkerOffer]) -> dict[str, float]:
    """Workers' powers from what they measured at their start: whole, the weakest 1, bounded.

    Equal machines that were busy differ by less than twice: those count as equal.
    """
    speeds = {name: max(lend.flops_per_s, 1.0) for name, lend in lends.items()}
    weakest = min(speeds.values())
    return {
        name: float(min(int(speed / weakest), MOST_TIMES)) for name, speed in sorted(speeds.items())
    }


def summary(deployment: Deployment) -> dict[str, Any]:
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


def text(report: dict[str, Any]) -> str:
    """The plan for people."""
    per, whole = report["per_shard"], report["undivided"]
    covers, tolerate = report["coverage_percent"], report["tolerate"]
    sets = "all" if report["exhaustive"] else "a sample of"
    lines = [
        f"plan {report['plan']}: layer {report['layer']} of {report['section']}, "
        f"{report['redundancy']} ({report['code']})",
        f"  {counted(report['shards'], 'shard')} on {counted(len(report['workers']), 'worker')}; "
        + (f"any {counted(tolerate, 'worker')} may vanish" if tolerate else "all are needed"),
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
        f"{counted(report['sets_checked'], 'loss', 'losses')} tried)",
    ]
    if report["relative_error"] > WORTH_A_WARNING:
        lines.append(
            "  warning          answers may differ for rounding: use fewer workers, a smaller "
            "--tolerate or --redundancy replicate"
        )
    return "\n".join(lines)


def counted(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
