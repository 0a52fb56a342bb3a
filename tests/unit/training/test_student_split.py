"""A model in two parts at its last feature map, and the students that replace the first."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import make_configuration
from ddnn.training.export import model_to_litert
from ddnn.training.models import Architecture, Network
from ddnn.training.split import split_features
from ddnn.training.students.family import (
    Backbone,
    build_student,
    count_flops,
    count_memory_bytes,
    list_students,
)


def make_edge(**options):
    network = Network(make_configuration("e", 2), Architecture(**options), (32, 32, 3), 3)
    return network.edges["edge"]


def make_wrn():
    body = build_student(Backbone.parse("wrn-10-1"), (32, 32, 3), (8, 8, 12))
    pooled = layers.GlobalAveragePooling2D()(body.output)
    return keras.Model(body.input, layers.Dense(10)(pooled))


@pytest.mark.parametrize(
    ("make", "shape", "last"),
    [
        (make_edge, (4, 4, 64), "ReLU"),
        (lambda: make_edge(edge_channels=(6, 5), edge_dense=(8,)), (4, 4, 5), "ReLU"),
        (lambda: make_edge(device_map_side=8, edge_channels=(6,)), (4, 4, 6), "MaxPooling2D"),
        (lambda: make_edge(style="binary", edge_bits=5), (16, 16, 5), "BatchNormalization"),
        (make_wrn, (8, 8, 12), "ReLU"),
    ],
    ids=["edge", "deeper edge", "pooled edge", "binary edge", "wrn"],
)
def test_features_and_classifier_are_the_model(make, shape, last) -> None:
    model = make()
    parts = split_features(model)
    assert parts.shape == shape
    assert type(parts.features.layers[-1]).__name__ == last
    x = np.random.default_rng(1).normal(size=(3, *model.inputs[0].shape[1:])).astype(np.float32)
    got = keras.tree.flatten(parts.classifier(parts.features(x)))
    for one, other in zip(got, keras.tree.flatten(model(x)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_map_that_also_reaches_an_output_by_another_way_is_no_split() -> None:
    image = layers.Input((6, 6, 3))
    first = layers.Conv2D(4, 3, name="first")(image)
    second = layers.Conv2D(2, 3, name="second")(first)
    around = layers.Concatenate()([layers.Flatten()(second), layers.Flatten()(first)])
    parts = split_features(keras.Model(image, layers.Dense(3)(around)))
    assert parts.features.layers[-1].name == "first"
    flat = layers.Concatenate()([layers.Flatten()(second), layers.Flatten()(image)])
    with pytest.raises(ConfigError, match="no feature map"):
        split_features(keras.Model(image, layers.Dense(3)(flat)))


def test_the_counts_are_those_of_the_papers_students() -> None:
    """RoCoIn's 0.18 M and 0.28 M parameters: WRN-16-1 and WRN-22-1 with a bridge of 64 filters."""
    for name, parameters in (("wrn-16-1", 179_200), ("wrn-22-1", 276_640)):
        student = build_student(Backbone.parse(name), (32, 32, 3), (8, 8, 64))
        assert sum(np.prod(v.shape) for v in student.trainable_variables) == parameters
    bridge_flops = 2 * 64 * 64 * 8 * 8
    wrn = build_student(Backbone.parse("wrn-16-1"), (32, 32, 3), (8, 8, 64))
    assert (count_flops(wrn) - bridge_flops) / 2 == pytest.approx(26.7e6, rel=0.005)


def test_flops_and_memory_of_a_small_student() -> None:
    student = build_student(Backbone("conv", 1, 3), (8, 8, 2), (4, 4, 5))
    assert count_flops(student) == 2 * (9 * 2 * 3 * 64 + 3 * 5 * 16)
    parameters = 9 * 2 * 3 + 4 * 3 + 3 * 5 + 4 * 5
    assert count_memory_bytes(student) == 4 * (parameters + 2 * 64 * 3)


@pytest.mark.parametrize("name", ["conv-2-8", "mobile-1-1", "wrn-10-1", "wrn-10-1-s2"])
@pytest.mark.parametrize("map_shape", [(8, 8, 5), (4, 4, 5), (16, 16, 5)])
def test_every_backbone_gives_the_teachers_map(name, map_shape) -> None:
    assert Backbone.parse(name).name == name
    student = build_student(Backbone.parse(name), (32, 32, 3), map_shape)
    assert tuple(student.outputs[0].shape[1:]) == map_shape
    assert isinstance(student.layers[-1], layers.ReLU)
    signed = build_student(Backbone.parse(name), (32, 32, 3), map_shape, positive=False)
    assert signed.layers[-1].name == "bridge_norm"


def test_types_of_students() -> None:
    types = list_students((8, 8, 24), (4, 4, 48))
    assert [t.capacity for t in types] == [16, 32, 48] * 2
    assert [t.name for t in list_students((32, 32, 3), (8, 8, 256), ["wrn-16-1-s2"])] == [
        "wrn-16-1-s2"
    ]
    for wrong in ("wrn-11-1", "conv", "conv-0-4", "vgg-1-1"):
        with pytest.raises(ConfigError, match=wrong):
            Backbone.parse(wrong)
    with pytest.raises(ConfigError, match="fits no map of 3x3"):
        list_students((8, 8, 4), (3, 3, 4))


def test_a_classifier_whose_input_is_an_output_can_be_exported(tmp_path) -> None:
    parts = split_features(make_edge(style="binary", edge_bits=2))
    from ddnn.adapters.litert import LiteRtSection

    file = tmp_path / "tail.tflite"
    file.write_bytes(model_to_litert(parts.classifier, ["z"], ["scores", "features"]))
    z = np.random.default_rng(1).normal(size=(16, 16, 2)).astype(np.float32)
    np.testing.assert_array_equal(LiteRtSection(file)({"z": z})["features"], z)
