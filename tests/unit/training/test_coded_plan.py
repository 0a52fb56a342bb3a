"""The files of a coded layer: head, shards, decoding and tail give what the whole section gives."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.matrices import load_section, write_matrix
from ddnn.coding.constructions import make_mds
from ddnn.coding.layers import Linear, SplitLayer, split_layer
from ddnn.core.files import BundleFile
from ddnn.errors import ConfigError, SectionError
from ddnn.runtime.bundle import make_file_entry
from ddnn.training.coded_plan import run_golden, write_files
from ddnn.training.cut import Cut, cut, find_cuttable
from ddnn.training.export import convolution_to_litert, section_to_litert
from tests.unit.training.test_cut import SMALL, make_edge, randomize


def write(parts: Cut, split: SplitLayer, out: Path) -> dict[str, BundleFile]:
    x_shape = tuple(parts.head.outputs[0].shape[1:])
    return write_files(parts, split, x_shape, out, write_matrix)


def load_sections(path: Path, entries: dict[str, BundleFile]) -> dict[str, Any]:
    return {name: load_section(path / entry.file) for name, entry in entries.items()}


def draw_features(model: Any, count: int) -> Any:
    """Fused binary features, some of an absent member."""
    shape = (count, *model.inputs[0].shape[1:])
    return np.random.default_rng(5).integers(-1, 2, shape).astype(np.float32)


def make_skip_connections() -> Any:
    """The layer's input is the section's own, needed after it, too; an output comes before it."""
    fused = layers.Input((4, 4, 3))
    maps = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")(fused)
    maps = layers.Add()([maps, fused])
    scores = layers.Dense(3, name="scores")(layers.Flatten()(maps))
    return randomize(keras.Model(fused, [scores, layers.ReLU()(fused)]))


def narrow_edge() -> Any:
    return make_edge(msgspec.structs.replace(SMALL, edge_channels=(6,), edge_dense=(24,)))


@pytest.mark.parametrize(
    "make", [narrow_edge, make_skip_connections], ids=["edge", "skip connections"]
)
def test_any_s_shards_may_be_missing(make, tmp_path: Path) -> None:
    """For each layer: head, shards and tail as files, decoded from every set of n - s shards."""
    model, n, s = make(), 5, 2
    (tmp_path / "whole.tflite").write_bytes(section_to_litert(model, "edge"))
    whole = LiteRtSection(tmp_path / "whole.tflite")
    for layer in find_cuttable(model):
        parts = cut(model, layer.name)
        split = split_layer(parts.layer, n, s, code=make_mds(n, s, seed=1))
        out = tmp_path / layer.name
        entries = write(parts, split, out)
        assert list(entries) == ["head", "tail", *map(str, range(n))]
        assert all(entry == make_file_entry(out / entry.file) for entry in entries.values())
        suffix = ".tflite" if layer.kind == "conv2d" else ".npz"
        for i in range(n):
            checksum = entries[str(i)].sha256[:8]
            assert entries[str(i)].file == f"shard{i}-{checksum}{suffix}"
        sections = load_sections(out, entries)
        for features in draw_features(model, 2):
            expected = whole({"features": features})
            arrays = sections["head"]({"features": features})
            assert set(arrays) == set(parts.head_arrays)
            z = np.asarray(parts.layer(arrays["x"][np.newaxis]))[0]
            answers = {i: sections[str(i)]({"x": arrays["x"]})["z"] for i in range(n)}
            for gone in combinations(range(n), s):
                left = {i: answer for i, answer in answers.items() if i not in gone}
                merged = split.merge(left).astype(np.float32)
                np.testing.assert_allclose(merged, z, rtol=1e-4, atol=2e-4)
                got = sections["tail"](
                    {name: merged if name == "z" else arrays[name] for name in parts.tail_arrays}
                )
                assert set(got) == {"scores", "features"}
                for key, value in got.items():
                    np.testing.assert_allclose(value, expected[key], rtol=1e-4, atol=1e-3)


def test_head_layer_and_tail_files_equal_the_section_closely(tmp_path: Path) -> None:
    model = make_edge()
    (tmp_path / "whole.tflite").write_bytes(section_to_litert(model, "edge"))
    whole = LiteRtSection(tmp_path / "whole.tflite")
    for layer in find_cuttable(model):
        parts = cut(model, layer.name)
        split = split_layer(parts.layer, 1, 0)
        sections = load_sections(tmp_path, write(parts, split, tmp_path))
        for features in draw_features(model, 4):
            arrays = sections["head"]({"features": features})
            arrays["z"] = sections["0"]({"x": arrays["x"]})["z"]
            got = sections["tail"]({name: arrays[name] for name in parts.tail_arrays})
            for key, value in whole({"features": features}).items():
                np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-4)


def test_golden_vectors_are_what_every_section_computes(tmp_path: Path) -> None:
    model = make_edge()
    parts = cut(model, "conv2")
    split = split_layer(parts.layer, 3, 1)
    entries = write(parts, split, tmp_path)
    sections = load_sections(tmp_path, entries)
    features = draw_features(model, 3)
    vectors = run_golden(model, parts, sections, features)
    assert {key.partition("/")[0] for key in vectors} == set(entries)
    assert {key for key in vectors if key.startswith("1/")} == {"1/in/x", "1/out/z"}
    assert all(len(values) == 3 and values.dtype == np.float32 for values in vectors.values())
    for name, section in sections.items():
        for index in range(3):
            outputs = section(
                {
                    k.split("/")[2]: v[index]
                    for k, v in vectors.items()
                    if k.startswith(f"{name}/in")
                }
            )
            for key, value in outputs.items():
                np.testing.assert_array_equal(vectors[f"{name}/out/{key}"][index], value)
    scores, maps = model(features, training=False)
    np.testing.assert_allclose(vectors["tail/out/scores"], scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(vectors["tail/out/features"], maps, rtol=1e-4, atol=1e-4)
    answers = {i: vectors[f"{i}/out/z"] for i in (0, 2)}
    np.testing.assert_allclose(split.merge(answers), vectors["tail/in/z"], rtol=1e-4, atol=1e-4)


def test_a_section_that_is_not_the_models_has_no_golden_vectors(tmp_path: Path) -> None:
    model = make_edge()
    parts = cut(model, "dense1")
    sections = load_sections(tmp_path, write(parts, split_layer(parts.layer, 2, 1), tmp_path))
    kernel = model.get_layer("scores").kernel
    kernel.assign(kernel * 1.1)
    with pytest.raises(SectionError, match="scores are not those of the whole"):
        run_golden(model, parts, sections, draw_features(model, 1))
    with pytest.raises(ConfigError, match="no layer 'dense3'"):
        cut(model, "dense3")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("strides", "padding", "dilation"),
    [((1, 1), "valid", (1, 1)), ((2, 1), "same", (1, 1)), ((1, 1), "same", (2, 3))],
)
def test_a_convolution_in_a_file_is_the_keras_layer(
    strides, padding, dilation, bias, tmp_path: Path
) -> None:
    layer = layers.Conv2D(4, (3, 2), strides, padding, dilation_rate=dilation, use_bias=bias)
    layer.build((None, 9, 8, 3))
    randomize(layer)
    file = tmp_path / "shard0.tflite"
    file.write_bytes(convolution_to_litert(Linear.of(layer), (9, 8, 3)))
    section = LiteRtSection(file)
    x = np.random.default_rng(3).normal(size=(9, 8, 3)).astype(np.float32)
    (z,) = layer(tf.constant(x[np.newaxis])).numpy()
    np.testing.assert_allclose(section({"x": x})["z"], z, rtol=1e-4, atol=1e-4)


def test_zeros_of_a_pruned_layer_stay_zeros_in_its_files(tmp_path: Path) -> None:
    """Dense shards of an uncoded split have exactly the layer's zeros."""
    model = make_edge(SMALL)
    kernel = model.get_layer("dense1").kernel
    pruned = np.asarray(kernel).copy()
    pruned[np.random.default_rng(1).random(pruned.shape) < 0.9] = 0
    kernel.assign(pruned)
    parts = cut(model, "dense1")
    entries = write(parts, split_layer(parts.layer, 3, 0), tmp_path)
    held = 0
    for i in range(3):
        with np.load(tmp_path / entries[str(i)].file) as arrays:
            held += np.count_nonzero(arrays["data" if "data" in arrays else "kernel"])
    assert held == np.count_nonzero(pruned)
