"""The cost and the coverage of redundancy (Hadidi et al., EDGE 2023, section VI, Fig. 14)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, SupportsIndex, get_args

import msgspec
from scipy import sparse

from ddnn.coding.layers import Linear, SplitLayer
from ddnn.coding.section import compact, count_stored_bytes
from ddnn.errors import ConfigError

Scheme = Literal["none", "2MR", "CDC", "CDC+2MR"]
"""2MR: a second copy of a device. CDC: one parity device for a coded layer. CDC+2MR: both."""
Redundancy = Literal["none", "replicate", "coded", "coded-sparse"]
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """The devices of a model.

    devices: their number, d; coded_layers: N_g, the devices of each layer that is split in a way
    that a parity device can cover. Raises ConfigError where the layers need more than d.
    """

    name: str
    devices: int
    coded_layers: tuple[int, ...]

    def __post_init__(self) -> None:
        split = sum(self.coded_layers)
        if min(self.coded_layers, default=1) < 1 or not max(split, 1) <= self.devices:
            raise ConfigError(
                f"{self.name}: {self.devices} devices, layers on {self.coded_layers}; expected at "
                "least one device for each layer, and together at most all devices"
            )


PAPER_MODELS = (
    ModelPlan("AlexNet", 5, (2,)),
    ModelPlan("Action recognition", 8, (2, 2)),
    ModelPlan("C3D-1", 7, (2, 2)),
    ModelPlan("C3D-2", 9, (3, 3)),
    ModelPlan("VGG16", 9, (3, 3)),
)
"""The models of Fig. 14. The paper gives the two or three devices per layer of C3D; the other sizes
are derived here from its curves (VGG16's nine devices, too, where a caption says eight)."""


Model = ModelPlan | str | tuple[int, Sequence[int]]
"""A plan, the name of one of `PAPER_MODELS`, or its devices and coded layers."""


def compute_coverage(plan: Model, scheme: Scheme | str, extra: int) -> float:
    """Percentage of the devices whose failure is tolerated, where all are equally likely to fail.

    For example compute_coverage("AlexNet", "CDC+2MR", 1) == 50.0, and so is
    compute_coverage((5, [2]), "CDC+2MR", 1).

    The formula is derived here; it gives the curves of Fig. 14. With d devices, G coded layers and
    x extra devices: 2MR copies one device to each, 100 * 2x / (d + x). CDC uses one for each coded
    layer, the largest first, which covers N_g + 1 devices; CDC+2MR copies others to the rest:
    100 * (sum of N_g + 1 over g <= x, + 2 (x - G)) / (d + x). Extra devices that cannot cover
    anything more are not used. Raises ConfigError for an unknown scheme or model, or extra < 0.
    """
    if not isinstance(extra, SupportsIndex) or extra < 0:
        raise ConfigError(f"extra: got {extra} devices, expected a whole number from 0")
    plan = _read_model_plan(plan)
    layers = sorted(plan.coded_layers, reverse=True)
    match str(scheme).upper():
        case "NONE":
            coded, copied = 0, 0
        case "2MR":
            coded, copied = 0, min(extra, plan.devices)
        case "CDC":
            coded, copied = min(extra, len(layers)), 0
        case "CDC+2MR":
            coded = min(extra, len(layers))
            copied = min(extra - coded, plan.devices - sum(layers))
        case _:
            raise ConfigError(
                f"scheme {scheme!r} is unknown; expected one of {', '.join(get_args(Scheme))}"
            )
    covered = sum(layers[:coded]) + coded + 2 * copied
    return 100 * covered / (plan.devices + coded + copied)


def _read_model_plan(plan: Model) -> ModelPlan:
    if isinstance(plan, ModelPlan):
        return plan
    if isinstance(plan, str):
        for model in PAPER_MODELS:
            if model.name.lower() == plan.lower():
                return model
        names = ", ".join(model.name for model in PAPER_MODELS)
        raise ConfigError(f"model {plan!r} is unknown; expected one of {names}")
    try:
        devices, layers = plan
        return ModelPlan("the model", index(devices), tuple(index(size) for size in layers))
    except (TypeError, ValueError):
        raise ConfigError(
            f"plan {plan!r}: expected a ModelPlan, a model's name, or (devices, coded layers)"
        ) from None


def compute_coverage_curve(plan: Model, scheme: Scheme | str) -> tuple[float, ...]:
    """Coverage with 1, 2, … extra devices, up to the last one that increases it."""
    values = (compute_coverage(plan, scheme, extra) for extra in itertools.count(1))
    curve = [next(values)]
    for value in values:
        if value <= curve[-1]:
            break
        curve.append(value)
    return tuple(curve)


def count_devices(k: int, s: int, redundancy: Redundancy) -> int:
    """The workers of a layer of k blocks that tolerates s losses: k + s coded, k (s + 1) copied."""
    if k < 1 or s < 0:
        raise ConfigError(f"k = {k}, s = {s}; expected at least one block and no negative s")
    match redundancy:
        case "none":
            return k
        case "replicate":
            return k * (s + 1)
        case "coded" | "coded-sparse":
            return k + s
        case _:
            raise ConfigError(
                f"redundancy {redundancy!r} is unknown; expected one of "
                f"{', '.join(get_args(Redundancy))}"
            )


def compute_cost_factor(k: int, s: int, redundancy: Redundancy = "coded") -> float:
    """Workers over workers without redundancy: 1 + s/k coded (EDGE 2023, section V), s + 1 copied
    (2MR: 2)."""
    return count_devices(k, s, redundancy) / k


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one node stores, receives, sends and computes for one sample of one layer."""

    memory_bytes: int
    input_bytes: int
    output_bytes: int
    flops: int


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The load of a split layer and of the undivided one."""

    workers: int
    blocks: int
    worker: Load  # the maximum over the shards, of each quantity
    total: Load  # of all shards
    whole: Load  # of the undivided layer


def compute_load(layer: Linear, input_shape: tuple[int, ...]) -> Load:
    """The load of a layer or a shard, in the smaller of its forms: as CSR only nonzeros count.

    input_shape: without the batch axis. Its flops are a multiplication and an addition for each
    weight and position of the output, padding included; the bias is not counted.
    """
    *positions, outputs = layer.compute_output_shape(input_shape)
    kernel = compact(layer.kernel) if layer.kind == "dense" else layer.kernel
    bias_bytes = 0 if layer.bias is None else layer.bias.nbytes
    return Load(
        memory_bytes=count_stored_bytes(kernel) + bias_bytes,
        input_bytes=FLOAT_BYTES * math.prod(input_shape),
        output_bytes=FLOAT_BYTES * math.prod(positions) * outputs,
        flops=2
        * int(kernel.nnz if sparse.issparse(kernel) else kernel.size)
        * math.prod(positions),
    )


def compute_cost(layer: Linear, split: SplitLayer, input_shape: tuple[int, ...]) -> Cost:
    """The cost of a split layer for inputs of this shape (without the batch axis)."""
    loads = [compute_load(shard, input_shape) for shard in split.shards]
    columns = list(zip(*map(msgspec.structs.astuple, loads), strict=True))
    busiest, total = Load(*map(max, columns)), Load(*map(sum, columns))
    return Cost(len(loads), split.code.k, busiest, total, compute_load(layer, input_shape))
