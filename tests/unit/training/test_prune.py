"""Pruning reaches the requested sparsity, and pruned weights stay zero in the exported file."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from ddnn.adapters.litert import LiteRtSection
from ddnn.cli.train import summarize
from ddnn.data import Dataset
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import make_configuration
from ddnn.local_site.train import train_bundle
from ddnn.runtime.bundle import check_file, load_bundle
from ddnn.training.augment import NONE
from ddnn.training.export import load_source
from ddnn.training.fit import Fit, fit
from ddnn.training.models import Architecture, Network
from ddnn.training.prune import Pruning, find_prunable, make_schedule, measure_sparsities
from ddnn.training.train import make_batches, train
from tests.unit.training.test_configurations_train import TINY

WIDE = msgspec.structs.replace(TINY, edge_dense=(40, 30))
QUICK = Fit(steps=12, batch=8, learning_rate=0.01, augmentation=NONE)


@given(
    sparsity=st.floats(0.01, 0.99),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    rounds=st.integers(1, 60),
    steps=st.integers(1, 900),
)
def test_the_schedule_climbs_to_the_sparsity_and_ends_in_time(
    sparsity, ends, rounds, steps
) -> None:
    pruning = Pruning(sparsity=sparsity, first=ends[0], last=ends[1], rounds=rounds)
    found = make_schedule(pruning, steps)
    assert list(found) == sorted(found)
    assert 1 <= min(found) <= max(found) <= steps
    assert len(found) <= rounds
    values = [0.0, *found.values()]
    assert values == sorted(values)
    assert values[-1] == sparsity
    assert max(found) == max(1, round(ends[1] * steps))


def test_the_schedule_is_the_papers_cubic() -> None:
    found = make_schedule(Pruning(sparsity=0.8, first=0.2, last=0.6, rounds=4), 100)
    assert list(found) == [30, 40, 50, 60]
    assert list(found.values()) == pytest.approx(
        [0.8 * (1 - 0.75**3), 0.8 * (1 - 0.5**3), 0.8 * (1 - 0.25**3), 0.8]
    )


@pytest.mark.parametrize("sparsity", [0.98, 0.5])
def test_exactly_the_requested_sparsity(sparsity, dataset: Dataset) -> None:
    """The averaged weights have it too, and the number of zeros never falls during training."""
    network = Network(make_configuration("f", 4), WIDE, dataset.image_shape, 3)
    pruning = Pruning(sparsity=sparsity, first=0.1, last=0.7)
    layers = {n: layer for n, layer in find_prunable(network).items() if "dense" in n}
    assert list(layers) == [f"{edge}/dense{j}" for edge in network.edges for j in (1, 2)]
    assert len(layers) == 4
    zeros: list[dict[str, np.ndarray]] = []

    def note(step: int, steps: int, loss: float) -> None:
        zeros.append({name: np.asarray(layer.kernel) == 0 for name, layer in layers.items()})

    fit(network, make_batches(dataset, 4), msgspec.structs.replace(QUICK, pruning=pruning), note)
    zeros.append({name: np.asarray(layer.kernel) == 0 for name, layer in layers.items()})
    due = make_schedule(pruning, QUICK.steps)
    reached = 0.0
    for step, (now, before) in enumerate(zip(zeros, [{}, *zeros], strict=False), 1):
        reached = due.get(step, reached)
        for name, mask in now.items():
            assert abs(mask.sum() - reached * mask.size) <= 1, (step, name)
            assert not before or (mask >= before[name]).all()  # zeros stay zero
    assert reached == sparsity
    got = measure_sparsities(network, pruning)
    assert list(got) == list(layers)
    for name, layer in layers.items():
        kernel = np.asarray(layer.kernel)
        assert got[name] == 1 - np.count_nonzero(kernel) / kernel.size
    # other layers are not pruned
    others = [layer for name, layer in find_prunable(network).items() if name not in layers]
    assert len(others) == 2
    assert all(np.asarray(layer.kernel).all() for layer in others)


def test_the_smallest_weights_are_pruned_first(dataset: Dataset) -> None:
    network = Network(make_configuration("e", 2), WIDE, dataset.image_shape, 3)
    kernel = find_prunable(network)["edge/dense1"].kernel
    before = np.abs(np.asarray(kernel)).ravel()
    settings = msgspec.structs.replace(
        QUICK,
        steps=1,
        learning_rate=1e-7,
        pruning=Pruning(sparsity=0.3, layers=("edge/dense1",)),
    )
    fit(network, make_batches(dataset, 2), settings)
    gone = np.asarray(kernel).ravel() == 0
    assert before[gone].max() <= before[~gone].min() + 1e-6
    assert np.asarray(find_prunable(network)["edge/dense2"].kernel).all()


def test_what_cannot_be_pruned_is_refused(dataset: Dataset) -> None:
    def attempt(architecture: Architecture, letter: str = "e", **pruning) -> None:
        network = Network(make_configuration(letter, 2), architecture, dataset.image_shape, 3)
        settings = msgspec.structs.replace(QUICK, pruning=Pruning(sparsity=0.9, **pruning))
        fit(network, make_batches(dataset, 2), settings)

    with pytest.raises(ConfigError, match=r"edge/dense3.*edge/dense1, edge/dense2, edge/scores"):
        attempt(WIDE, layers=("edge/dense1", "edge/dense3"))
    narrow = msgspec.structs.replace(WIDE, edge_dense=())
    with pytest.raises(ConfigError, match=r"no wide dense layer.*it has edge/scores.*--edge-dense"):
        attempt(narrow)
    with pytest.raises(ConfigError, match="it has none"):
        attempt(narrow, "c")
    with pytest.raises(ConfigError, match="--prune edge/dense1 goes with --sparsity"):
        train_bundle(
            data="scenes",
            out=Path("never"),
            configuration="e",
            devices=2,
            prune=("edge/dense1",),
        )
    for sparsity in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="more than 0 and less than 1"):
            Pruning(sparsity=sparsity)
    for wrong in ({"first": 0.7}, {"last": 1.5}, {"rounds": 0}):
        with pytest.raises(ConfigError, match="first <= last"):
            Pruning(sparsity=0.9, **wrong)


def test_wide_dense_layers_need_an_edge_section_that_takes_them() -> None:
    for letter, changes in (
        ("c", {}),
        ("e", {"style": "binary"}),
        ("e", {"sections": {"edge": "somewhere:built"}}),
    ):
        with pytest.raises(ConfigError, match="--edge-dense"):
            Network(
                make_configuration(letter, 2),
                msgspec.structs.replace(WIDE, **changes),
                (16, 16, 3),
                3,
            )
    pooled = msgspec.structs.replace(WIDE, pooled_heads=True)
    network = Network(make_configuration("e", 2), pooled, (32, 32, 3), 3)
    assert network.edges["edge"].get_layer("dense1").kernel.shape == (4 * 4 * 6, 40)


def test_zeros_stay_zeros_in_the_bundle(dataset: Dataset, tmp_path: Path) -> None:
    """In the LiteRT file and in the Keras model; the manifest reports the sparsity."""
    path = tmp_path / "bundle"
    settings = msgspec.structs.replace(QUICK, pruning=Pruning(sparsity=0.95))
    manifest = train(
        dataset,
        make_configuration("e", 2),
        path,
        LiteRtSection,
        name="made",
        data="scenes",
        architecture=WIDE,
        settings=settings,
    )
    bundle = load_bundle(path, LiteRtSection)
    assert bundle.manifest == manifest
    notes = {k: v for k, v in manifest.training.items() if k.startswith("sparsity ")}
    assert list(notes) == ["sparsity edge/dense1", "sparsity edge/dense2"]
    assert list(notes.values()) == pytest.approx([0.95, 0.95], abs=1 / 1200)
    assert {k: v for k, v in summarize(manifest).items() if k in notes} == notes  # it is printed
    source = load_source(check_file(path, manifest.sources["edge"]))
    interpreter = Interpreter(model_path=str(path / manifest.sections["edge"].file))
    interpreter.allocate_tensors()
    for name in ("dense1", "dense2"):
        kernel = np.asarray(source.get_layer(name).kernel)
        count = kernel.size - np.count_nonzero(kernel)
        assert abs(count - 0.95 * kernel.size) <= 1
        (shipped,) = [
            interpreter.get_tensor(detail["index"])
            for detail in interpreter.get_tensor_details()
            if tuple(detail["shape"]) == kernel.shape[::-1]
        ]
        np.testing.assert_array_equal(shipped, kernel.T)
    # the model that is kept computes what the section does
    features = np.ones(source.inputs[0].shape[1:], np.float32)
    scores, maps = source(features[np.newaxis], training=False)
    out = bundle.sections["edge"]({"features": features})
    np.testing.assert_allclose(out["scores"], scores[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["features"], maps[0], rtol=1e-4, atol=1e-4)

    # a bundle that was made before sources were kept
    text = json.loads((path / "manifest.json").read_text())
    del text["sources"]
    (path / "manifest.json").write_text(json.dumps(text))
    (path / "edge.keras").unlink()
    old = load_bundle(path, LiteRtSection)
    assert old.manifest == msgspec.structs.replace(manifest, sources={})
    np.testing.assert_array_equal(
        old.sections["edge"]({"features": features})["scores"], out["scores"]
    )
