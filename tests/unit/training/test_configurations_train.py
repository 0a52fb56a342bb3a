"""Each of the paper's six configurations is trained and exported, and the bundle computes what the
network computes: every exit, every set of members."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from ddnn.adapters.litert import LiteRtSection
from ddnn.data import Dataset
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.inference import count_payload_bytes, infer, run_devices, run_exits
from ddnn.exits.manifest import Manifest
from ddnn.exits.measure import list_member_masks
from ddnn.runtime.bundle import check_file, load_bundle
from ddnn.training.augment import NONE
from ddnn.training.export import load_source, section_to_litert
from ddnn.training.fit import Fit, fit
from ddnn.training.models import Architecture, Network
from ddnn.training.train import make_batches, train

TINY = Architecture(
    device_channels=(4, 6),
    device_map_side=4,
    device_bits=3,
    edge_channels=(6,),
    edge_bits=5,
    cloud_channels=(6,),
)
BINARY = msgspec.structs.replace(TINY, style="binary")
QUICK = Fit(steps=4, batch=8, learning_rate=0.01)


class Case(NamedTuple):
    letter: str
    devices: int
    exit_scheme: str
    fusion_scheme: str
    architecture: Architecture


CASES = {
    "a": Case("a", 3, "MP", "CC", TINY),
    "b, binary": Case("b", 1, "MP", "CC", BINARY),
    "c, own weights, MP-AP": Case(
        "c", 3, "MP", "AP", msgspec.structs.replace(TINY, share_devices=False)
    ),
    "d": Case("d", 1, "AP", "MP", TINY),
    "e, CC-CC": Case("e", 3, "CC", "CC", TINY),
    "f, binary, CC-MP": Case("f", 4, "CC", "MP", BINARY),
}


class Trained(NamedTuple):
    case: Case
    network: Network
    path: Path


@pytest.fixture(scope="module", params=CASES)
def training_result(
    request: pytest.FixtureRequest, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    case = CASES[request.param]
    hierarchy = make_configuration(
        case.letter, case.devices, exit_scheme=case.exit_scheme, fusion_scheme=case.fusion_scheme
    )
    networks: list[Network] = []

    class RecordedNetwork(Network):
        """Keeps the trained network for comparison."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            networks.append(self)

    path = tmp_path_factory.mktemp("made") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddnn.training.train.Network", RecordedNetwork)
        train(
            dataset,
            hierarchy,
            path,
            LiteRtSection,
            name="made",
            data="scenes",
            architecture=case.architecture,
            settings=QUICK,
            score_type="float32",
        )
    (network,) = networks
    return Trained(case, network, path)


def test_the_bundle_is_complete(training_result: Trained) -> None:
    case, _, path = training_result
    bundle = load_bundle(path, LiteRtSection)  # checksums and golden vectors are right
    manifest = bundle.manifest
    assert manifest.training["steps"] == QUICK.steps
    assert math.isfinite(float(manifest.training["loss"]))
    hierarchy = manifest.hierarchy
    nodes = [*(hierarchy.devices if case.letter != "a" else ()), "cloud"]
    nodes += [group.id for group in hierarchy.edges] if case.letter in "def" else []
    assert sorted(manifest.sections) == sorted(nodes)
    files = {manifest.sections[device].file for device in hierarchy.devices if case.letter != "a"}
    own = not case.architecture.share_devices
    assert len(files) == (0 if case.letter == "a" else len(hierarchy.devices) if own else 1)
    on_disk = {file.name for file in path.iterdir()}
    assert set(manifest.sources) == (
        {g.id for g in hierarchy.edges} if case.letter in "def" else set()
    )
    used = {entry.file for entry in [*manifest.sections.values(), *manifest.sources.values()]}
    assert on_disk == used | {"manifest.json", "golden.npz"}
    # every set of members has its accuracy, so that each answer can report it
    assert set(manifest.accuracy) == {str(m) for m in list_member_masks(len(hierarchy.devices))}
    for row in manifest.accuracy.values():
        assert set(row) == {*hierarchy.exits, "overall"}
        assert all(0 <= value <= 1 for value in row.values())
    assert set(manifest.thresholds) == set(hierarchy.exits[:-1])
    assert bool(manifest.heads) == (case.exit_scheme == "CC" and case.letter != "a")
    json.dumps(msgspec.to_builtins(manifest), allow_nan=False)


def test_the_bundle_computes_what_the_network_computes(
    training_result: Trained, dataset: Dataset
) -> None:
    """All exits, all sets of members; the features are signed, so they must agree bit for bit."""
    bundle = load_bundle(training_result.path, LiteRtSection)
    manifest, hierarchy = bundle.manifest, bundle.manifest.hierarchy
    members = len(hierarchy.devices)
    images = dataset.test.images[:6, :members]
    run = tf.function(lambda x, mask: training_result.network(x, mask, training=False))
    outputs = [run_devices(manifest, bundle.sections, sample) for sample in images]
    for mask in list_member_masks(members):
        present = np.tile([[mask >> i & 1 for i in range(members)]], (len(images), 1))
        exits = run(tf.constant(images, tf.float32), tf.constant(present, tf.float32))
        for n in range(len(images)):
            answers = run_exits(manifest, bundle.sections, outputs[n], mask)
            assert set(answers) == set(hierarchy.exits)
            for tier, scores in answers.items():
                expected = exits[tier][n].numpy()
                np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)
                assert scores.argmax() == expected.argmax()
        if "device" in exits:
            device_scores = np.array([[output.scores for output in sample] for sample in outputs])
            np.testing.assert_allclose(device_scores, exits["device"], rtol=1e-3, atol=1e-3)


def test_the_models_of_the_edges_are_kept(training_result: Trained) -> None:
    """Their weights are equal, so that layers can be cut out later."""
    manifest = load_bundle(training_result.path, LiteRtSection).manifest
    for edge, entry in manifest.sources.items():
        kept, model = (
            load_source(check_file(training_result.path, entry)),
            training_result.network.edges[edge],
        )
        for one, other in zip(kept.weights, model.weights, strict=True):
            np.testing.assert_array_equal(one, other)
        assert [layer.name for layer in kept.layers] == [layer.name for layer in model.layers]


def test_the_bundle_answers(training_result: Trained, dataset: Dataset) -> None:
    bundle = load_bundle(training_result.path, LiteRtSection)
    hierarchy = bundle.manifest.hierarchy
    for sample in dataset.test.images[:5, : len(hierarchy.devices)]:
        judgement = infer(bundle.manifest, bundle.sections, sample)
        assert judgement.sure
        assert judgement.exit in hierarchy.exits
        assert 0 <= judgement.label < 3
        assert sum(judgement.probabilities) == pytest.approx(1, abs=1e-5)
        sent = count_payload_bytes(bundle.manifest, judgement.exit, judgement.mask)
        raw = len(hierarchy.devices) * bundle.manifest.raw_bytes
        assert sent == raw if training_result.case.letter == "a" else sent < raw / 10


def test_sections_are_small_static_files(training_result: Trained) -> None:
    """Batch 1, no operation on shapes (a dynamic Flatten would add some), uint8 images."""
    for file in training_result.path.glob("*.tflite"):
        interpreter = Interpreter(model_path=str(file))
        interpreter.allocate_tensors()
        operations = [op["op_name"] for op in interpreter._get_ops_details()]
        for name in ("SHAPE", "STRIDED_SLICE", "PACK", "RANK", "FILL", "WHILE"):
            assert name not in operations, (file.name, operations)
        assert len([op for op in operations if op != "DELEGATE"]) <= 20, operations
        details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
        assert all(detail["shape"][0] == 1 for detail in details)
        assert all((detail["shape_signature"] > 0).all() for detail in details)
        device = file.stem == "device" or file.stem.startswith("cam")
        assert interpreter.get_input_details()[0]["dtype"] == (np.uint8 if device else np.float32)
        (signature,) = interpreter.get_signature_list().values()
        assert signature["inputs"] == ["image" if device else "features"]
        tier_below = file.stem != "cloud"
        assert signature["outputs"] == (["features", "scores"] if tier_below else ["scores"])


def test_an_exported_section_equals_keras(tmp_path: Path) -> None:
    for style in ("float", "binary"):
        architecture = msgspec.structs.replace(TINY, style=style)
        network = Network(make_configuration("b"), architecture, (32, 32, 3), 3)
        model = network.devices["cam1"]
        generator = np.random.default_rng(1)
        for weight in model.weights:  # also the batch norms' statistics, as training would
            if "seed" not in weight.path:
                value = generator.uniform(0.05, 1.0, weight.shape)
                weight.assign(
                    value * generator.choice([-1, 1]) if "kernel" in weight.path else value
                )
        file = tmp_path / f"{style}.tflite"
        file.write_bytes(section_to_litert(model, "device"))
        section = LiteRtSection(file)
        for image in generator.integers(0, 256, (5, 32, 32, 3), np.uint8):
            scores, features = model(image[None].astype(np.float32), training=False)
            out = section({"image": image})
            np.testing.assert_allclose(out["scores"], scores[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(out["features"], features[0], rtol=1e-4, atol=1e-4)


def test_binary_weights_stay_in_the_range_of_their_gradient(dataset: Dataset) -> None:
    network = Network(make_configuration("b"), BINARY, dataset.image_shape, 3)
    kernels = [w for m in network.models for w in m.trainable_weights if w.path.count("binary")]
    before = [np.asarray(kernel).copy() for kernel in kernels]
    assert kernels
    settings = Fit(steps=6, batch=4, learning_rate=0.8, warm_up_steps=1, augmentation=NONE)
    fit(network, make_batches(dataset, 1), settings)
    for kernel, old in zip(kernels, before, strict=True):
        values = np.asarray(kernel)
        assert np.abs(values).max() <= 1
        assert np.abs(values - old).max() > 0.2  # without the constraint they would leave it
    assert any(np.abs(np.asarray(kernel)).max() > 0.99 for kernel in kernels)


def test_the_seed_determines_the_losses(dataset: Dataset) -> None:
    import keras

    def losses(seed: int) -> list[float]:
        keras.utils.set_random_seed(1)
        hierarchy = make_configuration("c", 2)
        network = Network(hierarchy, TINY, dataset.image_shape, 3)
        found: list[float] = []
        settings = Fit(steps=3, batch=4, seed=seed)
        fit(network, make_batches(dataset, 2), settings, lambda n, of, loss: found.append(loss))
        return found

    first = losses(0)
    assert losses(0) == pytest.approx(first, rel=1e-3)
    assert losses(1) != pytest.approx(first, rel=1e-3)


def test_train_writes_a_bundle(dataset: Dataset, tmp_path: Path) -> None:
    phases: list[str] = []
    manifest = train(
        dataset,
        make_configuration("c", 2),
        tmp_path / "bundle",
        LiteRtSection,
        name="made",
        data="scenes",
        architecture=TINY,
        settings=Fit(steps=2, batch=4),
        jpeg_bytes=900.0,
        notes={"data_seed": 5},
        progress=lambda what, done, total: phases.append(what),
    )
    loaded = load_bundle(tmp_path / "bundle", LiteRtSection)
    assert isinstance(manifest, Manifest)
    assert loaded.manifest == msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    assert (manifest.training["steps"], manifest.training["data_seed"]) == (2, 5)
    assert manifest.jpeg_bytes == 900.0
    assert any(row.thresholds == manifest.thresholds for row in manifest.sweep)
    assert {phase.partition(",")[0] for phase in phases} >= {
        "training",
        "measuring every subset of members",
    }
