"""What redundancy costs and what it covers (Hadidi et al., EDGE 2023, section VI, Fig. 14)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, get_args

import msgspec
from scipy import sparse

from ddnn.coding.layers import Linear, SplitLayer
from ddnn.coding.section import smaller, stored_bytes
from ddnn.errors import ConfigError

Scheme = Literal["none", "2MR", "CDC", "CDC+2MR"]
"""2MR: a device is doubled. CDC: one parity device for a whole coded layer. CDC+2MR: both."""
Redundancy = Literal["none", "replicate", "coded", "coded-sparse"]
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """How a model lies on devices.

    devices: all of them, d; coded_layers: N_g, the devices of each layer that is split in a way
    that a parity device can cover.
    """

    name: str
    devices: int
    coded_layers: tuple[int, ...]

    def __post_init__(self) -> None:
        split = sum(self.coded_layers)
        if min(self.coded_layers, default=1) < 1 or not max(split, 1) <= self.devices:
            raise ConfigError(
                f"{self.name}: {self.devices} devices, layers on {self.coded_layers}; expected at "
                "least one device for each layer and no more than all of them together"
            )


PAPER_MODELS = (
    ModelPlan("AlexNet", 5, (2,)),
    ModelPlan("Action recognition", 8, (2, 2)),
    ModelPlan("C3D-1", 7, (2, 2)),
    ModelPlan("C3D-2", 9, (3, 3)),
    ModelPlan("VGG16", 9, (3, 3)),
)
"""The models of Fig. 14. The paper gives the two or three devices per layer of C3D; the other
sizes are derived here from its curves (and VGG16's nine devices, where a caption says eight)."""


Model = ModelPlan | str | tuple[int, Sequence[int]]
"""A plan, the name of one of `PAPER_MODELS`, or its devices and coded layers."""


def coverage(plan: Model, scheme: Scheme | str, extra: int) -> float:
    """Percent of the devices whose failure is survived, all being as likely to fail.

    For example coverage("AlexNet", "CDC+2MR", 1) == coverage((5, [2]), "CDC+2MR", 1) == 50.0.

    The formula is derived here; it gives the curves of Fig. 14. With d devices and x extra:
    2MR doubles one device with each extra, 100 * 2x / (d + x). CDC spends an extra on each coded
    layer, which covers N_g + 1 devices, largest first; CDC+2MR then doubles others with the rest:
    100 * (sum of N_g + 1 over g <= x, + 2 (x - G)) / (d + x). Extras with nothing left to cover
    are not used.
    """
    if extra < 0:
        raise ConfigError(f"extra: got {extra} devices, expected 0 or more")
    plan = _model_plan(plan)
    layers = sorted(plan.coded_layers, reverse=True)
    match str(scheme).upper():
        case "NONE":
            coded, doubled = 0, 0
        case "2MR":
            coded, doubled = 0, min(extra, plan.devices)
        case "CDC":
            coded, doubled = min(extra, len(layers)), 0
        case "CDC+2MR":
            coded = min(extra, len(layers))
            doubled = min(extra - coded, plan.devices - sum(layers))
        case _:
            raise ConfigError(
                f"coverage has no scheme {scheme!r}; it has {', '.join(get_args(Scheme))}"
            )
    covered = sum(layers[:coded]) + coded + 2 * doubled
    return 100 * covered / (plan.devices + coded + doubled)


def _model_plan(plan: Model) -> ModelPlan:
    if isinstance(plan, ModelPlan):
        return plan
    if isinstance(plan, str):
        for model in PAPER_MODELS:
            if model.name.lower() == plan.lower():
                return model
        names = ", ".join(model.name for model in PAPER_MODELS)
        raise ConfigError(f"there is no model {plan!r}; there is {names}")
    try:
        devices, layers = plan
        return ModelPlan("the model", index(devices), tuple(index(size) for size in layers))
    except (TypeError, ValueError):
        raise ConfigError(
            f"plan {plan!r}: expected a ModelPlan, a model's name, or (devices, coded layers)"
        ) from None


def coverage_curve(plan: Model, scheme: Scheme | str) -> tuple[float, ...]:
    """Coverage with 1, 2, … extra devices, until another one adds nothing."""
    values = (coverage(plan, scheme, extra) for extra in itertools.count(1))
    rising = [next(values)]
    for value in values:
        if value <= rising[-1]:
            break
        rising.append(value)
    return tuple(rising)


def devices_needed(k: int, s: int, redundancy: Redundancy) -> int:
    """Workers for a layer in k blocks of which any s may vanish: k + s coded, k (s + 1) copied."""
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
                f"there is no redundancy {redundancy!r}; there is {', '.join(get_args(Redundancy))}"
            )


def cost_factor(k: int, s: int, redundancy: Redundancy = "coded") -> float:
    """Hardware against none: 1 + s/k coded (EDGE 2023, section V), s + 1 copied (2MR: 2)."""
    return devices_needed(k, s, redundancy) / k


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one node keeps, receives, sends and computes for one sample of one layer."""

    memory_bytes: int
    input_bytes: int
    output_bytes: int
    flops: int


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a split layer asks of the busiest of its workers, and the undivided layer."""

    workers: int
    blocks: int
    worker: Load
    total: Load  # of all shards
    whole: Load


def load(layer: Linear, input_shape: tuple[int, ...]) -> Load:
    """The load of a layer or a shard, in the smaller of its forms: as CSR only nonzeros count.

    flops: a multiplication and an addition for each weight and position of the output, padding
    included; the bias is left out.
    """
    *positions, outputs = layer.output_shape(input_shape)
    kernel = smaller(layer.kernel) if layer.kind == "dense" else layer.kernel
    bias_bytes = 0 if layer.bias is None else layer.bias.nbytes
    return Load(
        memory_bytes=stored_bytes(kernel) + bias_bytes,
        input_bytes=FLOAT_BYTES * math.prod(input_shape),
        output_bytes=FLOAT_BYTES * math.prod(positions) * outputs,
        flops=2
        * int(kernel.nnz if sparse.issparse(kernel) else kernel.size)
        * math.prod(positions),
    )


def layer_cost(layer: Linear, split: SplitLayer, input_shape: tuple[int, ...]) -> Cost:
    """The cost of a split layer for inputs of this shape (without the batch axis)."""
    loads = [load(shard, input_shape) for shard in split.shards]
    columns = list(zip(*map(msgspec.structs.astuple, loads), strict=True))
    busiest, total = Load(*map(max, columns)), Load(*map(sum, columns))
    return Cost(len(loads), split.code.k, busiest, total, load(layer, input_shape))
