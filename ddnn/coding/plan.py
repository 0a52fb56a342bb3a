"""Planning of coded shards: the code for given devices, its cost and its guarantees. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from ddnn.coding.capacity import assign_virtual_workers, count_virtual_stragglers
from ddnn.coding.certification import Certificate, certify
from ddnn.coding.code import Code
from ddnn.coding.constructions import (
    make_low_weight,
    make_replication,
    make_systematic,
    make_uncoded,
)
from ddnn.coding.coverage import Cost, ModelPlan, Redundancy, compute_coverage
from ddnn.coding.detail import read_detail
from ddnn.coding.state import format_count
from ddnn.core.device import DeviceProfile
from ddnn.core.plan import MAX_PIECES, Plan, PlanRequest
from ddnn.errors import ConfigError, InfeasiblePlanError

FLOAT32_EPSILON = 2.0**-23
WARNING_ERROR = 1e-2  # relative error of the layer's outputs that is worth a warning


def count_losses(request: PlanRequest) -> int:
    """The number of workers that may fail: by default 1, with redundancy none 0.

    Raises ConfigError where the request contradicts itself, InfeasiblePlanError where it leaves no
    worker.
    """
    if request.tolerate is None:
        return 0 if request.redundancy == "none" else 1
    if request.tolerate < 0:
        raise ConfigError(f"--tolerate {request.tolerate}: expected 0 or more")
    if request.redundancy == "none" and request.tolerate:
        raise ConfigError("--redundancy none tolerates nothing; use --tolerate 0, or coded")
    if 0 < len(request.devices) <= request.tolerate:
        raise InfeasiblePlanError(
            f"--tolerate {request.tolerate} of {format_count(len(request.devices), 'worker')} "
            "leaves none to compute the layer; use more workers or a smaller --tolerate"
        )
    return request.tolerate


def place_shards(request: PlanRequest) -> dict[str, tuple[int, ...]]:
    """The shards of each device: one for the slowest, and for the others in proportion to speed.

    Copies on one worker would be lost together, so of replicas even a fast worker has one. Raises
    ConfigError without devices or where a speed is not positive, InfeasiblePlanError where there
    would be too many shards.
    """
    if not request.devices:
        raise ConfigError("no workers; name them with --workers, such as --workers 6")
    speeds = {
        device.name: 1.0 if request.redundancy == "replicate" else device.flops_per_s
        for device in request.devices
    }
    slowest = min(speeds.values())
    shards = sum(max(1, round(speed / slowest)) for speed in speeds.values())
    if shards > MAX_PIECES:
        raise InfeasiblePlanError(
            f"the plan needs {shards:,} shards, expected at most {MAX_PIECES}; use fewer workers"
        )
    return assign_virtual_workers(speeds, shards)


def make_code(request: PlanRequest, placement: Mapping[str, tuple[int, ...]]) -> Code:
    """The code for these workers' shards.

    Raises InfeasiblePlanError where no code tolerates the losses, ConfigError where the redundancy
    is not one of coded shards.
    """
    n, losses = sum(len(shards) for shards in placement.values()), count_losses(request)
    s = count_virtual_stragglers(placement, losses)
    copies = s + 1 if request.redundancy == "replicate" else 0
    if n - s < 1 or n < copies:
        raise InfeasiblePlanError(
            f"{len(placement)} workers with {n} shards cannot lose {losses} of them "
            f"({s} shards) and still compute the layer; use more workers or a smaller --tolerate"
        )
    match request.redundancy:
        case "none":
            return make_uncoded(n)
        case "replicate":
            return make_replication(n, s)
        case "coded-sparse":
            return make_low_weight(n, s, request.seed)
        case "coded":
            return make_systematic(n, s, request.seed)
    raise ConfigError(
        f"--redundancy {request.redundancy!r}: expected one of {', '.join(get_args(Redundancy))}"
    )


def require_certificate(code: Code) -> Certificate:
    """The code's certificate. Raises InfeasiblePlanError where it does not tolerate every loss."""
    certificate = certify(code)
    if not certificate.decodable:
        raise InfeasiblePlanError(
            f"{code.name} with {code.n} shards does not tolerate the loss of shards "
            f"{certificate.worst_set}; use another --seed"
        )
    return certificate


def check_memory(
    placement: Mapping[str, tuple[int, ...]], cost: Cost, devices: Iterable[DeviceProfile]
) -> None:
    """Raise InfeasiblePlanError where a worker's shards do not fit into its free memory."""
    for device in devices:
        needed_bytes = len(placement[device.name]) * cost.worker.memory_bytes
        if device.memory_bytes is not None and device.memory_bytes < needed_bytes:
            raise InfeasiblePlanError(
                f"{device.name} has {device.memory_bytes:,} bytes free, its shards need "
                f"{needed_bytes:,}; use more workers"
            )


# ---------------------------------------------------------------------- reports


def summarize(plan: Plan) -> dict[str, Any]:
    """The cost and the coverage of the plan, for `ddnn plan --json`."""
    detail = read_detail(plan)
    n, k = detail.matrix.shape
    cost, certificate = detail.cost, detail.certificate
    layer = ModelPlan(detail.layer, k, (k,))
    extra = n - k
    return {
        "section": plan.group,
        "layer": detail.layer,
        "redundancy": detail.redundancy,
        "code": detail.code,
        "shards": n,
        "enough": k,
        "tolerate": detail.tolerate,
        "workers": {name: list(shards) for name, shards in plan.placement.items()},
        "hardware": n / k,
        "hardware_by_replication": detail.tolerate + 1,
        "work": cost.total.flops / cost.whole.flops if cost.whole.flops else None,
        "memory": cost.total.memory_bytes / cost.whole.memory_bytes,
        "coverage_percent": {
            "2MR": compute_coverage(layer, "2MR", extra),
            "CDC+2MR": compute_coverage(layer, "CDC+2MR", extra),
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


def format_summary(report: Mapping[str, Any]) -> Sequence[str]:
    """The lines of text of a summary."""
    shard, whole = report["per_shard"], report["undivided"]
    covers, tolerate = report["coverage_percent"], report["tolerate"]
    sets = "all" if report["exhaustive"] else "a sample of"
    workers = format_count(len(report["workers"]), "worker")
    may = f"any {format_count(tolerate, 'worker')} may vanish" if tolerate else "all are needed"
    lines = [
        f"layer {report['layer']} of {report['section']}, {report['redundancy']} "
        f"({report['code']})",
        f"  {format_count(report['shards'], 'shard')} on {workers}; {may}",
        *(
            f"    {name:16} {', '.join(map(str, shards))}"
            for name, shards in report["workers"].items()
        ),
        f"  hardware         {report['hardware']:.2f}x as many shards as blocks (copies for the "
        f"same: {report['hardware_by_replication']}x)",
        f"  all shards       {report['work'] or 0:.2f}x the work and {report['memory']:.2f}x the "
        "memory of the undivided layer",
        f"  coverage         {covers['CDC+2MR']:.0f} % of the workers may fail alone (with as many "
        f"extra devices as copies {covers['2MR']:.0f} %)",
        f"  per shard        {shard['memory_bytes']:,} bytes of memory, {shard['flops']:,} flops, "
        f"{shard['input_bytes']:,} bytes in, {shard['output_bytes']:,} bytes out",
        f"  undivided layer  {whole['memory_bytes']:,} bytes of memory, {whole['flops']:,} flops",
        f"  rounding         decoding errs by at most about {report['relative_error']:.1g} of the "
        f"layer's outputs (condition {report['condition']:.3g}; {sets} "
        f"{format_count(report['sets_checked'], 'loss', 'losses')} tried)",
    ]
    if report["relative_error"] > WARNING_ERROR:
        lines.append(
            "  warning          rounding may change answers: use fewer workers, a smaller "
            "--tolerate or --redundancy replicate"
        )
    return lines
