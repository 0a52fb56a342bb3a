"""From a bundle to a plan: cut the section, code the layer, write the shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from ddnn.coding.capacity import virtual_stragglers, virtual_workers
from ddnn.coding.code import Certificate, Code
from ddnn.coding.coverage import Cost, Redundancy, layer_cost
from ddnn.coding.deployment import HEAD, TAIL, Checked, Deployment, shard_name
from ddnn.coding.layers import Linear, split_layer
from ddnn.core.section import Section
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.exits.hierarchy import CLOUD, Hierarchy
from ddnn.protocol.messages import MAX_PIECES
from ddnn.runtime.bundle import MANIFEST, checked_file, read_golden, read_manifest, write_golden
from ddnn.runtime.deployment import write_plan
from ddnn.training.cut import CutLayer, cut, find_cuttable
from ddnn.training.deployment import WriteMatrix, golden, write_sections
from ddnn.training.export import load_source

NO_SECTION = "its edges have no section that could be shared; use configuration d, e or f"
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
    memory_bytes: Mapping[str, int] = {}  # free on each worker; not named, or 0: not known


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
    if (out / MANIFEST).exists():
        raise ConfigError(f"--out {out} is a bundle: the plan would overwrite its files")
    edge = wanted.edge or manifest.hierarchy.lead
    manifest.hierarchy.group(edge)
    check_names(wanted.power, manifest.hierarchy)
    if not manifest.hierarchy.edge_section:
        raise ConfigError(f"bundle {manifest.name}: {NO_SECTION}")
    if edge not in manifest.sources:
        raise ConfigError(
            f"bundle {manifest.name} holds no source of section {edge}, so that it cannot be cut; "
            "train it again with this version"
        )
    # Copies on one worker would be lost together: of replicas a strong worker has one, too.
    equal = dict.fromkeys(wanted.power, 1.0)
    shares = shares_of(equal if wanted.redundancy == "replicate" else wanted.power)
    code = make_code(wanted, shares)
    certificate = certified(code)
    progress("cutting the section", 0, 1)
    model = load_source(checked_file(bundle, manifest.sources[edge]))
    layer = chosen(find_cuttable(model), wanted.layer.removeprefix(f"{edge}/"), edge)
    parts = cut(model, layer.name)
    whole = Linear.of(parts.layer)
    if code.k > whole.units:
        raise InfeasiblePlanError(
            f"layer {layer.name} has {whole.units} outputs, which {code.k} blocks cannot share; "
            "use fewer workers or another --layer"
        )
    split = split_layer(whole, code.n, code.s, code=code)
    x_shape = tuple(int(n) for n in parts.head.outputs[0].shape[1:])
    cost = layer_cost(whole, split, x_shape)
    check_memory(shares, cost, wanted.memory_bytes)
    progress("cutting the section", 1, 1)
    progress("writing shards", 0, 1)
    for file in out.glob("shard*"):  # of the plan before
        file.unlink()
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
        cost=cost,
        certificate=Checked(
            certificate.worst_condition,
            certificate.worst_set,
            certificate.exhaustive,
            certificate.checked,
        ),
    )
    return deployment, write_plan(out, deployment)


def check_names(workers: Iterable[str], hierarchy: Hierarchy) -> None:
    """ConfigError where a worker is an edge or the cloud: only devices lend."""
    busy = {CLOUD, *(group.id for group in hierarchy.edges)}
    for name in workers:
        if name in busy:
            raise ConfigError(
                f"--workers: {name} is not a device, and only device_app lends; "
                f"use one of {', '.join(hierarchy.devices)}, or another name, such as worker1"
            )


def check_memory(
    shares: Mapping[str, tuple[int, ...]], cost: Cost, memory_bytes: Mapping[str, int]
) -> None:
    """InfeasiblePlanError where a worker's shards do not fit into the memory that it has free."""
    for name, held in shares.items():
        need_bytes = len(held) * cost.worker.memory_bytes
        if 0 < memory_bytes.get(name, 0) < need_bytes:
            raise InfeasiblePlanError(
                f"{name} has {memory_bytes[name]:,} bytes free, its shards need {need_bytes:,}; "
                "use more workers"
            )


def shares_of(power: Mapping[str, float]) -> dict[str, tuple[int, ...]]:
    """The shards of each worker: one for the weakest, as many more as the others are stronger."""
    if not power:
        raise ConfigError("no workers; name them with --workers, such as --workers 6")
    weakest = min(power.values())
    if weakest <= 0:
        raise ConfigError("a worker's power must be above 0")
    shards = sum(max(1, round(value / weakest)) for value in power.values())
    if shards > MAX_PIECES:
        raise InfeasiblePlanError(f"{shards:,} shards; use so few workers that {MAX_PIECES} do")
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
