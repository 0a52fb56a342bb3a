"""From a bundle to a plan: cut the section, code the layer, write the shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from ddnn.coding.capacity import virtual_stragglers, virtual_workers
from ddnn.coding.code import Certificate, Code
from ddnn.coding.coverage import Redundancy, layer_cost
from ddnn.coding.deployment import HEAD, TAIL, Checked, Deployment, shard_name
from ddnn.coding.layers import Linear, split_layer
from ddnn.core.section import Section
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.runtime.bundle import checked_file, read_golden, read_manifest, write_golden
from ddnn.runtime.deployment import write_plan
from ddnn.training.cut import CutLayer, cut, cuttable
from ddnn.training.deployment import WriteMatrix, golden, write_sections
from ddnn.training.export import load_source

EXAMPLES = 4  # samples of golden vectors

Progress = Callable[[str, int, int], None]


class Wanted(msgspec.Struct, frozen=True):
    """What a plan shall be like. power: the workers, and how strong each is beside the others."""

    redundancy: Redundancy
    power: Mapping[str, float]
    tolerate: int
    edge: str = ""  # by default the lead
    layer: str = ""  # by default the heaviest
    seed: int = 0


def make_code(wanted: Wanted, shares: Mapping[str, tuple[int, ...]]) -> Code:
    """The code for these workers' shards; InfeasiblePlanError where it cannot tolerate that."""
    n = sum(len(held) for held in shares.values())
    s = virtual_stragglers(shares, wanted.tolerate)
    if wanted.redundancy == "none" and wanted.tolerate:
        raise ConfigError("--redundancy none tolerates nothing; use --tolerate 0, or coded")
    copies = s + 1 if wanted.redundancy == "replicate" else 0
    if n - s < 1 or n < copies:
        raise InfeasiblePlanError(
            f"{len(shares)} workers with {n} shards cannot lose {wanted.tolerate} of them "
            f"({s} shards) and still hold the layer; use more workers or a smaller --tolerate"
        )
    match wanted.redundancy:
        case "none":
            return Code.uncoded(n)
        case "replicate":
            return Code.replication(n, s)
        case "coded-sparse":
            return Code.low_weight(n, s, wanted.seed)
        case "coded":
            if s == 0:
                return Code.uncoded(n)
            return Code.parity(n) if s == 1 else Code.mds(n, s, wanted.seed)


def certified(code: Code) -> Certificate:
    """The code's certificate; InfeasiblePlanError where some loss is not survived."""
    certificate = code.certify()
    if not certificate.decodable:
        raise InfeasiblePlanError(
            f"{code.name} with {code.n} shards does not survive the loss of "
            f"{certificate.worst_set}; use another --seed"
        )
    return certificate


def make_plan(
    bundle: Path,
    out: Path,
    wanted: Wanted,
    load_section: Callable[[Path], Section],
    write_matrix: WriteMatrix,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Deployment, str]:
    """Write the plan into `out`; it and its id. Needs the bundle's Keras source of the section."""
    manifest, bundle_id = read_manifest(bundle)
    edge = wanted.edge or manifest.hierarchy.lead
    manifest.hierarchy.group(edge)
    if not manifest.hierarchy.edge_section:
        raise ConfigError(f"bundle {manifest.name}: its edges have no section that could be shared")
    if edge not in manifest.sources:
        raise ConfigError(
            f"bundle {manifest.name} holds no source of section {edge}, so that it cannot be cut; "
            "train it again with this version"
        )
    shares = shares_of(wanted.power)
    code = make_code(wanted, shares)
    certificate = certified(code)
    progress("cutting the section", 0, 1)
    model = load_source(checked_file(bundle, manifest.sources[edge]))
    layer = chosen(cuttable(model), wanted.layer, edge)
    parts = cut(model, layer.name)
    whole = Linear.of(parts.layer)
    split = split_layer(whole, code.n, code.s, code=code)
    x_shape = tuple(int(n) for n in parts.head.outputs[0].shape[1:])
    progress("cutting the section", 1, 1)
    progress("writing shards", 0, 1)
    files = write_sections(model, layer.name, split.shards, out, write_matrix)
    names = [HEAD, TAIL, *(shard_name(i) for i in range(code.n))]
    sections = {name: load_section(out / files[name].file) for name in names}
    progress("writing shards", 1, 1)
    features = read_golden(checked_file(bundle, manifest.golden))[f"{edge}/in/features"]
    vectors = golden(model, layer.name, sections, np.asarray(features[:EXAMPLES], np.float32))
    deployment = Deployment(
        format=1,
        bundle=bundle_id,
        section=edge,
        layer=layer.name,
        kind=whole.kind,
        redundancy=wanted.redundancy,
        tolerate=wanted.tolerate,
        code=code.name,
        s=code.s,
        generator=code.generator.tolist(),
        units=whole.units,
        input_shape=x_shape,
        shard_shape=split.shards[0].output_shape(x_shape),
        workers=shares,
        sections=files,
        golden=write_golden(out, vectors),
        cost=layer_cost(whole, split, x_shape),
        certificate=Checked(
            certificate.worst_condition,
            certificate.worst_set,
            certificate.exhaustive,
            certificate.checked,
        ),
    )
    return deployment, write_plan(out, deployment)


def shares_of(power: Mapping[str, float]) -> dict[str, tuple[int, ...]]:
    """The shards of each worker: one for the weakest, as many more as the others are stronger."""
    if not power:
        raise ConfigError("no workers; name them with --workers, such as --workers 6")
    weakest = min(power.values())
    if weakest <= 0:
        raise ConfigError("a worker's power must be above 0")
    shards = sum(max(1, round(value / weakest)) for value in power.values())
    return virtual_workers(power, shards)


def chosen(known: tuple[CutLayer, ...], name: str, edge: str) -> CutLayer:
    """The layer that is named, or the heaviest."""
    if not known:
        raise ConfigError(f"section {edge} has no Dense or Conv2D layer that could be shared")
    for layer in known:
        if name in ("", layer.name):
            return layer
    those = ", ".join(f"{layer.name} ({layer.flops:,} flops)" for layer in known)
    raise ConfigError(f"--layer {name!r}: section {edge} has {those}")
