"""Sections of pretrained networks: their parts in sequence are the network; bundles of them run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.data import load
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.inference import infer
from ddnn.runtime.bundle import load_bundle
from ddnn.training import backbone_sections
from ddnn.training.backbone import Backbone
from ddnn.training.backbone_sections import build_backbone, list_cuts, take_part
from ddnn.training.models import Network
from ddnn.training.recipes import choose_recipe
from ddnn.training.train import train

SHAPE = (32, 32, 3)
SMALL = Backbone(name="mobilenetv3small", weights="random")


def make_network(backbone: Backbone, letter: str = "e", shape=SHAPE, **options) -> Network:
    architecture = choose_recipe("directory", backbone=backbone, **options).architecture
    return Network(make_configuration(letter, 2), architecture, shape, 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(1)
    file = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    build_backbone(SMALL).save_weights(file)
    return file


@pytest.mark.parametrize("name", ["mobilenetv3small", "mobilenetv2", "efficientnetv2b0"])
def test_the_parts_in_sequence_are_the_network(name) -> None:
    backbone = Backbone(name=name, weights="random")
    whole = build_backbone(backbone)
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    x = image
    cuts = list_cuts(backbone, whole)
    for first, last in pairwise(cuts):
        x = take_part(whole, first, last, backbone)(x, training=False)
    np.testing.assert_allclose(x, whole(image, training=False), rtol=1e-4, atol=1e-5)


def test_a_bundle_starts_with_the_weights_of_the_file_and_runs(
    weights: Path, tmp_path: Path
) -> None:
    backbone = Backbone(name="mobilenetv3small", weights=str(weights), frozen=True)
    recipe = choose_recipe("directory", backbone=backbone)
    dataset = load("scenes", samples=(60, 30, 20))
    manifest = train(
        dataset,
        make_configuration("c", 2),
        tmp_path / "bundle",
        LiteRtSection,
        name="small",
        data="scenes",
        architecture=recipe.architecture,
        settings=msgspec.structs.replace(recipe.fit, steps=2),
    )
    loaded = load_bundle(tmp_path / "bundle", LiteRtSection)  # compares the golden outputs
    answer = infer(loaded.manifest, loaded.sections, dataset.test.images[0, :2])
    assert len(answer.probabilities) == 3
    assert manifest.device_features[-1] == 24
    assert str(weights.parent) not in (tmp_path / "bundle" / "manifest.json").read_text()
    assert "small.weights.h5" in str(manifest.training["architecture"])


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_layers_stay_as_they_are(weights: Path, frozen: bool) -> None:
    backbone = Backbone(name="mobilenetv3small", weights=str(weights), frozen=frozen)
    network = make_network(backbone)
    device = network.devices["cam1"]
    part = next(layer for layer in device.layers if isinstance(layer, keras.Model))
    expected = build_backbone(backbone).get_layer("conv").kernel
    np.testing.assert_array_equal(part.get_layer("conv").kernel, expected)
    trained = {id(variable) for variable in network.trainable_variables}
    assert (id(part.get_layer("conv").kernel) in trained) is not frozen
    assert id(device.get_layer("scores").kernel) in trained


@pytest.mark.parametrize(("letter", "parts"), [("b", 2), ("c", 2), ("d", 3), ("f", 4)])
def test_what_has_no_edge_goes_on_in_the_cloud(letter: str, parts: int) -> None:
    """Every layer of the network stands in one tier."""
    network = make_network(SMALL, letter)
    inner = [
        layer
        for model in network.models
        for layer in getattr(model, "layers", [])
        if isinstance(layer, keras.Model)
    ]
    assert len(inner) == parts
    names = {layer.name for part in inner for layer in part.layers}
    assert {"conv", "expanded_conv_2_add", "expanded_conv_3_expand", "conv_1"} <= names


def test_larger_images_send_no_more_bytes() -> None:
    small, large = make_network(SMALL), make_network(SMALL, shape=(128, 128, 3))
    assert small.device_features[-1] == large.device_features[-1] == 24
    assert large.device_features[0] == 8


def test_what_cannot_be_is_refused(tmp_path: Path, weights: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.h5: no such file"):
        Backbone(name="mobilenetv2", weights=str(tmp_path / "nowhere.h5"))
    with pytest.raises(ConfigError, match=r"no weights of mobilenetv2 without its top"):
        build_backbone(Backbone(name="mobilenetv2", weights=str(weights)))
    with pytest.raises(ConfigError, match=r"images of 16x16; expected 32 or more"):
        make_network(SMALL, shape=(16, 16, 3))
    with pytest.raises(ConfigError, match=r"sections on devices"):
        make_network(SMALL, "a")
    with pytest.raises(ConfigError, match=r"sections on devices"):
        make_network(SMALL, style="binary")
    with pytest.raises(ConfigError, match=r"no --backbone"):
        make_network(SMALL, edge_dense=(8,))

    def fail(**_):
        raise OSError("URL fetch failure on x: Name or service not known")

    network = backbone_sections.NETWORKS["mobilenetv2"]._replace(build=fail)
    monkeypatch.setitem(backbone_sections.NETWORKS, "mobilenetv2", network)
    with pytest.raises(ConfigError, match=r"URL fetch failure.*give a file"):
        build_backbone(Backbone(name="mobilenetv2"))
