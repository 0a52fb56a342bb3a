"""From a bundle to a plan of coded shards: cut the edge's section, code the layer, write files."""

from __future__ import annotations

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
from ddnn.core.plan import Plan, PlanRequest
from ddnn.core.section import Section, is_close
from ddnn.errors import ConfigError, InfeasiblePlanError, SectionError
from ddnn.runtime.bundle import check_file, read_golden
from ddnn.runtime.plans import write_plan
from ddnn.training.cut import Cut, CutLayer, cut, find_cuttable
from ddnn.training.export import convolution_to_litert, model_to_litert, write_section
from ddnn.training.golden import GoldenRecorder
from ddnn.training.plan_files import (
    EXAMPLES,
    OUTPUTS,
    Progress,
    WriteMatrix,
    check_options,
    declare_piece,
    find_edge,
    version_file,
    write_golden_versioned,
)


def make_plan(
    bundle: Path,
    out: Path,
    request: PlanRequest,
    *,
    load_section: Callable[[Path], Section],
    write_matrix: WriteMatrix,
    progress: Progress = lambda what, done, total: None,
    **_: Any,
) -> Plan:
    """Write a plan into `out`; the plan with its id.

    Needs the bundle's Keras source of the section, and no data. write_matrix(path, kernel or CSR
    matrix [in, out], bias or None) writes a dense shard (.npz). Raises ConfigError where the bundle
    cannot be cut as requested, InfeasiblePlanError where no plan meets the request, before long
    work.
    """
    planned = find_edge(bundle, out, request)
    check_options(request, "tolerate", "layer")
    edge = planned.edge
    placement = place_shards(request)
    code = make_code(request, placement)
    certificate = require_certificate(code)
    progress("cutting the section", 0, 1)
    model = planned.load_model()
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
    features = read_golden(check_file(bundle, planned.manifest.golden))[f"{edge}/in/features"]
    vectors = run_golden(model, parts, sections, np.asarray(features[:EXAMPLES], np.float32))
    pieces = {name: declare_piece(name, file, vectors) for name, file in files.items()}
    detail = make_detail(request, layer.name, whole, code, cost, certificate)
    plan = Plan(
        format=1,
        room=ROOM,
        bundle=planned.bundle_id,
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
    """Write head, tail and shards; by "head", "tail", "0", "1", ..."""
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


def run_golden(
    model: Any, parts: Cut, sections: Mapping[str, Section], features: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """Inputs and outputs of the plan's sections, by <section>/in|out/<array>.

    sections: as written, loaded; features: inputs of the undivided section [samples, ...].
    SectionError where head, layer and tail together are not the undivided model.
    """
    golden = GoldenRecorder(sections)
    whole = [np.asarray(t) for t in keras.tree.flatten(model(features, training=False))]
    for index, sample in enumerate(features):
        arrays = dict(golden.run("head", {"features": sample}))
        x = arrays[INPUT]
        for name in sections:
            if name not in ("head", "tail"):
                golden.run(name, {INPUT: x})
        arrays[OUTPUT] = np.asarray(parts.layer(x[np.newaxis]))[0]
        outputs = golden.run("tail", {name: arrays[name] for name in parts.tail_arrays})
        for name, expected in zip(OUTPUTS, whole, strict=True):
            if not is_close(outputs[name], expected[index]):
                raise SectionError(
                    f"cut at {parts.layer.name}, the section's {name} are not those of the whole; "
                    "cut it at another layer"
                )
    return golden.stack()
