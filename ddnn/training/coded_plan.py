"""From a bundle to a plan of coded shards: cut the edge's section, code the layer, write files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.coding.certification import Certificate
from ddnn.coding.code import Code
from ddnn.coding.coverage import Cost, Redundancy, compute_cost
from ddnn.coding.detail import INPUT, OUTPUT, ROOM, CertificateSummary, CodingDetail, read_detail
from ddnn.coding.layers import Linear, SplitLayer, split_layer
from ddnn.coding.plan import (
    check_memory,
    count_losses,
    make_code,
    place_shards,
    require_certificate,
)
from ddnn.core.files import BundleFile
from ddnn.core.plan import ArraySpec, Piece, Plan, PlanRequest
from ddnn.core.section import Arrays, Section, is_close
from ddnn.errors import ConfigError, InfeasiblePlanError, SectionError
from ddnn.exits.hierarchy import CLOUD, Hierarchy
from ddnn.runtime.bundle import (
    MANIFEST,
    check_file,
    make_file_entry,
    read_golden,
    read_manifest,
    write_golden,
)
from ddnn.runtime.plans import write_plan
from ddnn.training.cut import Cut, CutLayer, cut, find_cuttable
from ddnn.training.export import (
    convolution_to_litert,
    load_source,
    model_to_litert,
    write_section,
)

NO_SECTION = "its edges have no section that could be shared; use configuration d, e or f"
EXAMPLES = 4  # samples of golden vectors
OUTPUTS = ("scores", "features")  # of an edge's section

Progress = Callable[[str, int, int], None]
WriteMatrix = Callable[[Path, Any, NDArray[np.float32] | None], object]


def make_plan(
    bundle: Path,
    out: Path,
    request: PlanRequest,
    *,
    load_section: Callable[[Path], Section],
    write_matrix: WriteMatrix,
    progress: Progress = lambda what, done, total: None,
) -> Plan:
    """Write a plan into `out`; the plan with its id.

    Needs the bundle's Keras source of the section. write_matrix(path, kernel or CSR matrix
    [in, out], bias or None) writes a dense shard (.npz). Raises ConfigError where the bundle cannot
    be cut as requested, InfeasiblePlanError where no plan meets the request, before long work.
    """
    manifest, bundle_id = read_manifest(bundle)
    if (out / MANIFEST).exists():
        raise ConfigError(f"--out {out} is a bundle: the plan would overwrite its files")
    edge = request.edge or manifest.hierarchy.lead
    manifest.hierarchy.find_group(edge)
    check_names([device.name for device in request.devices], manifest.hierarchy)
    if not manifest.hierarchy.edge_section:
        raise ConfigError(f"bundle {manifest.name}: {NO_SECTION}")
    if edge not in manifest.sources:
        raise ConfigError(
            f"bundle {manifest.name} holds no source of section {edge}, so that it cannot be cut; "
            "train it again with this version"
        )
    placement = place_shards(request)
    code = make_code(request, placement)
    certificate = require_certificate(code)
    progress("cutting the section", 0, 1)
    model = load_source(check_file(bundle, manifest.sources[edge]))
    layer = find_layer(find_cuttable(model), request.layer.removeprefix(f"{edge}/"), edge)
    parts = cut(model, layer.name)
    whole = Linear.of(parts.layer)
    if code.k > whole.units:
        raise InfeasiblePlanError(
            f"layer {layer.name} has {whole.units} outputs, which {code.k} blocks cannot share; "
            "use fewer workers or another --layer"
        )
    split = split_layer(whole, code.n, code.s, code=code)
    x_shape = tuple(int(n) for n in parts.head.outputs[0].shape[1:])
    cost = compute_cost(whole, split, x_shape)
    check_memory(placement, cost, request.devices)
    progress("cutting the section", 1, 1)
    progress("writing shards", 0, 1)
    files = write_files(parts, split, x_shape, out, write_matrix)
    sections = {name: load_section(out / file.file) for name, file in files.items()}
    progress("writing shards", 1, 1)
    features = read_golden(check_file(bundle, manifest.golden))[f"{edge}/in/features"]
    vectors = run_golden(model, parts, sections, np.asarray(features[:EXAMPLES], np.float32))
    pieces = {name: declare_piece(name, file, vectors) for name, file in files.items()}
    detail = make_detail(request, layer.name, whole, code, cost, certificate)
    plan = Plan(
        format=1,
        room=ROOM,
        bundle=bundle_id,
        group=edge,
        pieces=tuple(pieces[str(number)] for number in range(code.n)),
        placement=placement,
        golden=write_golden_versioned(out, vectors),
        owned={"head": pieces["head"], "tail": pieces["tail"]},
        detail=msgspec.to_builtins(detail),
    )
    read_detail(plan)
    return write_plan(out, plan)


def make_detail(
    request: PlanRequest,
    layer: str,
    whole: Linear,
    code: Code,
    cost: Cost,
    certificate: Certificate,
) -> CodingDetail:
    """What the plan has besides its pieces."""
    return CodingDetail(
        layer=layer,
        kind=whole.kind,
        redundancy=cast(Redundancy, request.redundancy),  # make_code has checked it
        tolerate=count_losses(request),
        code=code.name,
        s=code.s,
        generator=code.generator.tolist(),
        units=whole.units,
        cost=cost,
        certificate=CertificateSummary(
            certificate.worst_condition,
            certificate.worst_set,
            certificate.exhaustive,
            certificate.checked,
        ),
    )


def check_names(workers: Sequence[str], hierarchy: Hierarchy) -> None:
    """ConfigError where a worker is an edge or the cloud: only devices work."""
    busy = {CLOUD, *(group.id for group in hierarchy.edges)}
    for name in workers:
        if name in busy:
            raise ConfigError(
                f"--workers: {name} is not a device, and only device_app lends; "
                f"use one of {', '.join(hierarchy.devices)}, or another name, such as worker1"
            )


def find_layer(known: Sequence[CutLayer], name: str, edge: str) -> CutLayer:
    """The layer of that name, or the heaviest. ConfigError lists those that there are."""
    if not known:
        raise ConfigError(f"section {edge} has no Dense or Conv2D layer that could be shared")
    for layer in known:
        if name in ("", layer.name):
            return layer
    those = ", ".join(f"{layer.name} ({layer.flops:,} flops)" for layer in known)
    raise ConfigError(f"--layer {name!r}: section {edge} has {those}")


# ------------------------------------------------------------------------ files


def write_files(
    parts: Cut, split: SplitLayer, x_shape: tuple[int, ...], out: Path, write_matrix: WriteMatrix
) -> dict[str, BundleFile]:
    """Write head, tail and shards; by "head", "tail", "0", "1", ...

    The names of the files carry their contents' checksum, so that a plan that is in use keeps its
    files while another is written into the same directory.
    """
    out.mkdir(parents=True, exist_ok=True)
    owned = {
        "head": model_to_litert(parts.head, ("features",), parts.head_arrays),
        "tail": model_to_litert(parts.tail, parts.tail_arrays, OUTPUTS),
    }
    entries = {n: version_file(write_section(out, n, data)) for n, data in owned.items()}
    for number, shard in enumerate(split.shards):
        name = f"shard{number}"
        if shard.kind == "conv2d":
            file = write_section(out, name, convolution_to_litert(shard, x_shape))
        else:
            file = out / f"{name}.npz"
            write_matrix(file, shard.kernel, shard.bias)
        entries[str(number)] = version_file(file)
    return entries


def version_file(file: Path) -> BundleFile:
    """Rename a file to carry the first digits of its sha256."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return make_file_entry(file.replace(file.with_name(f"{file.stem}-{digest}{file.suffix}")))


def write_golden_versioned(out: Path, vectors: dict[str, NDArray[Any]]) -> BundleFile:
    """Write golden vectors into a file of a name of its own."""
    return version_file(out / write_golden(out, vectors).file)


def declare_piece(name: str, file: BundleFile, vectors: Mapping[str, NDArray[Any]]) -> Piece:
    """A section file with the arrays of its golden vectors."""

    def declare(way: str) -> dict[str, ArraySpec]:
        prefix = f"{name}/{way}/"
        return {
            key.removeprefix(prefix): ArraySpec(str(v.dtype), v.shape[1:])  # type: ignore[arg-type]
            for key, v in vectors.items()
            if key.startswith(prefix)
        }

    return Piece(file, declare("in"), declare("out"))


def run_golden(
    model: Any, parts: Cut, sections: Mapping[str, Section], features: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """Inputs and outputs of the plan's sections, by <section>/in|out/<array>.

    sections: as written, loaded; features: inputs of the undivided section [samples, ...].
    SectionError where head, layer and tail together are not the undivided model.
    """
    rows: dict[str, list[NDArray[Any]]] = {}

    def run(name: str, inputs: Arrays) -> Arrays:
        outputs = sections[name](inputs)
        for way, arrays in (("in", inputs), ("out", outputs)):
            for key, value in arrays.items():
                rows.setdefault(f"{name}/{way}/{key}", []).append(value)
        return outputs

    whole = [np.asarray(t) for t in keras.tree.flatten(model(features, training=False))]
    for index, sample in enumerate(features):
        arrays = dict(run("head", {"features": sample}))
        x = arrays[INPUT]
        for name in sections:
            if name not in ("head", "tail"):
                run(name, {INPUT: x})
        arrays[OUTPUT] = np.asarray(parts.layer(x[np.newaxis]))[0]
        outputs = run("tail", {name: arrays[name] for name in parts.tail_arrays})
        for name, expected in zip(OUTPUTS, whole, strict=True):
            if not is_close(outputs[name], expected[index]):
                raise SectionError(
                    f"cut at {parts.layer.name}, the section's {name} are not those of the whole; "
                    "cut it at another layer"
                )
    return {key: np.stack(values) for key, values in rows.items()}
