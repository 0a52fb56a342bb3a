"""The files of a coded layer's deployment: head, tail and shards, and their golden vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ddnn.coding.deployment import HEAD, TAIL, shard_name
from ddnn.coding.layers import Linear
from ddnn.core.files import BundleFile
from ddnn.core.section import Section
from ddnn.errors import SectionError
from ddnn.runtime.bundle import GOLDEN_TOLERANCE, file_entry
from ddnn.training.cut import cut
from ddnn.training.export import convolution_to_litert, model_to_litert, write_section

OUTPUTS = ("scores", "features")  # of an edge's section
WriteMatrix = Callable[[Path, Any, NDArray[np.float32] | None], object]


def write_sections(
    model: Any, layer_name: str, shards: Sequence[Linear], out: Path, write_matrix: WriteMatrix
) -> dict[str, BundleFile]:
    """Write head, tail and shards of the model cut at a layer; "head", "tail", "shard0", ….

    write_matrix(path, kernel or CSR matrix [in, out], bias or None) writes a dense shard (.npz).
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = cut(model, layer_name)
    files = {
        HEAD: model_to_litert(parts.head, ("features",), parts.head_arrays),
        TAIL: model_to_litert(parts.tail, parts.tail_arrays, OUTPUTS),
    }
    x_shape = tuple(parts.head.outputs[0].shape[1:])
    entries = {name: file_entry(write_section(out, name, data)) for name, data in files.items()}
    for number, shard in enumerate(shards):
        name = shard_name(number)
        if shard.kind == "conv2d":
            file = write_section(out, name, convolution_to_litert(shard, x_shape))
        else:
            file = out / f"{name}.npz"
            write_matrix(file, shard.kernel, shard.bias)
        entries[name] = file_entry(file)
    return entries


def golden(
    model: Any,
    layer_name: str,
    sections: Mapping[str, Section],
    features: NDArray[np.float32],
) -> dict[str, NDArray[Any]]:
    """Inputs and outputs of the deployment's sections, by <section>/in|out/<array>.

    sections: as written, loaded; features: inputs of the undivided section [samples, …].
    SectionError where head, layer and tail together are not the undivided model.
    """
    parts = cut(model, layer_name)
    rows: dict[str, list[NDArray[Any]]] = {}

    def run(name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = sections[name](inputs)
        for way, arrays in (("in", inputs), ("out", outputs)):
            for key, value in arrays.items():
                rows.setdefault(f"{name}/{way}/{key}", []).append(value)
        return outputs

    whole = [np.asarray(t) for t in keras.tree.flatten(model(features, training=False))]
    for index, sample in enumerate(features):
        arrays = run(HEAD, {"features": sample})
        x = arrays["x"]
        for name in sections:
            if name not in (HEAD, TAIL):
                run(name, {"x": x})
        arrays["z"] = np.asarray(parts.layer(x[np.newaxis]))[0]
        outputs = run(TAIL, {name: arrays[name] for name in parts.tail_arrays})
        for name, expected in zip(OUTPUTS, whole, strict=True):
            if not np.allclose(
                outputs[name], expected[index], rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE
            ):
                raise SectionError(
                    f"cut at {layer_name}, the section's {name} are not those of the whole; "
                    "cut it at another layer"
                )
    return {key: np.stack(values) for key, values in rows.items()}
