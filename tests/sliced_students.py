"""A plan of students without training: each computes some output channels of a real convolution.

The portions joined are exactly what the layer computes, so that the distributed answer is the
undistributed network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ddnn.core.plan import ArraySpec, Piece, Plan
from ddnn.runtime.bundle import (
    check_file,
    make_file_entry,
    read_golden,
    read_manifest,
    write_golden,
)
from ddnn.runtime.plans import write_plan
from ddnn.students.detail import ROOM, StudentDetail, StudentSummary

EXAMPLES = 2
OUTAGE = 0.1
ACCURACY = {
    str(mask): {"edge": 0.9 - mask / 100, "cloud": 0.95 - mask / 100} for mask in range(2**3)
}


def make_plan(bundle: Path, out: Path, groups: Sequence[Sequence[str]], layer: str = "conv1"):
    """Write a plan in which each of these groups of workers has an equal part of the channels."""
    import keras

    from ddnn.adapters.litert import LiteRtSection
    from ddnn.training.cut import cut
    from ddnn.training.export import load_source, model_to_litert, write_section

    manifest, bundle_id = read_manifest(bundle)
    edge = manifest.hierarchy.lead
    parts = cut(load_source(check_file(bundle, manifest.sources[edge])), layer)
    assert parts.tail_arrays == ("z",)
    out.mkdir(parents=True)
    whole = parts.layer
    channels = np.random.default_rng(1).permutation(whole.filters)
    filters = [sorted(part.tolist()) for part in np.array_split(channels, len(groups))]
    shape = parts.head.outputs[0].shape[1:]

    def write_student(number: int, part: Sequence[int]) -> Path:
        x = keras.Input(shape)
        some = keras.layers.Conv2D(
            len(part), whole.kernel_size, whole.strides, whole.padding, use_bias=whole.use_bias
        )
        student = keras.Model(x, some(x))
        some.set_weights([np.asarray(weight)[..., part] for weight in whole.get_weights()])
        data = model_to_litert(student, ["features"], ["portion"])
        return write_section(out, f"student{number}", data)

    files = {str(k): write_student(k, part) for k, part in enumerate(filters)}
    tail = model_to_litert(parts.tail, ["z"], ["scores", "features"])
    files["tail"] = write_section(out, "tail", tail)
    sections = {name: LiteRtSection(file) for name, file in files.items()}
    rows: dict[str, list[Any]] = {}

    def run(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = sections[name](inputs)
        for way, arrays in (("in", inputs), ("out", outputs)):
            for key, array in arrays.items():
                rows.setdefault(f"{name}/{way}/{key}", []).append(array)
        return outputs

    golden = read_golden(check_file(bundle, manifest.golden))[f"{edge}/in/features"]
    for features in np.asarray(golden[:EXAMPLES], np.float32):
        z = np.empty((*parts.tail.inputs[0].shape[1:-1], whole.filters), np.float32)
        for number, part in enumerate(filters):
            z[..., part] = run(str(number), {"features": features})["portion"]
        run("tail", {"z": z})
    vectors = {name: np.stack(arrays) for name, arrays in rows.items()}

    def declare(name: str) -> Piece:
        def specs(way: str) -> dict[str, ArraySpec]:
            prefix = f"{name}/{way}/"
            return {
                key.removeprefix(prefix): ArraySpec("float32", array.shape[1:])
                for key, array in vectors.items()
                if key.startswith(prefix)
            }

        return Piece(make_file_entry(files[name]), specs("in"), specs("out"))

    detail = StudentDetail(
        filters=filters,
        fill="zero",
        fill_values=[0.0] * whole.filters,
        outage=[OUTAGE ** len(members) for members in groups],
        p_th=OUTAGE,
        students=[StudentSummary(f"{layer}-{k}", 1e6, 10_000, 2000) for k in range(len(groups))],
        teacher_parameters=10_000,
        guaranteed_latency_s=0.3,
        expected_latency_s=0.2,
        best_latency_s=0.1,
        accuracy=ACCURACY,
    )
    plan = Plan(
        format=1,
        room=ROOM,
        bundle=bundle_id,
        group=edge,
        pieces=tuple(declare(str(k)) for k in range(len(groups))),
        placement={name: (k,) for k, members in enumerate(groups) for name in members},
        golden=write_golden(out, vectors),
        owned={"tail": declare("tail")},
        detail=msgspec.to_builtins(detail),
    )
    return write_plan(out, plan)
