"""The building blocks of training equal their plain definitions."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from ddnn.errors import ConfigError
from ddnn.exits.aggregate import SCHEMES, aggregate
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.inference import compute_signs
from ddnn.training.augment import NONE, apply, draw
from ddnn.training.blocks import BinaryConv2D, BinaryDense, sign
from ddnn.training.fit import Fit, compute_joint_loss, draw_member_mask
from ddnn.training.fusion import fuse
from ddnn.training.models import Architecture, Network


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_fuse_equals_what_the_nodes_aggregate(scheme, shape) -> None:
    """For every mask of four members, also the empty one."""
    members = 4
    masks = np.array([[mask >> i & 1 for i in range(members)] for mask in range(1 << members)])
    generator = np.random.default_rng(1)
    values = generator.normal(-1, 1, (len(masks), members, *shape)).astype(np.float32)
    fused = fuse(tf.constant(values), tf.constant(masks, tf.float32), scheme).numpy()
    for row, mask, got in zip(values, masks, fused, strict=True):
        parts = [value if there else None for value, there in zip(row, mask, strict=True)]
        np.testing.assert_allclose(got, aggregate(parts, scheme, shape), rtol=1e-6, atol=1e-6)


def test_sign_and_its_straight_through_gradient() -> None:
    values = np.array([-2, -1.001, -1, -0.3, -1e-30, -0.0, 0, 1e-30, 0.7, 1, 1.001, 5], np.float32)
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = sign(x)
        loss = tf.reduce_sum(y * tf.range(1.0, len(values) + 1))
    assert y.numpy().tolist() == compute_signs(values).tolist()
    upstream = np.arange(1, len(values) + 1)
    expected = np.where(np.abs(values) <= 1, upstream, 0)
    assert tape.gradient(loss, x).numpy().tolist() == expected.tolist()


def test_binary_layers_compute_with_the_signs_of_their_weights() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(2, 5, 5, 3)).astype(np.float32)
    convolution, dense = BinaryConv2D(4), BinaryDense(6)
    got = convolution(tf.constant(x)).numpy()
    kernel = compute_signs(np.asarray(convolution.kernel))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        padded[:, i : i + 5, j : j + 5] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    flat = x.reshape(2, -1)
    got = dense(tf.constant(flat)).numpy()
    np.testing.assert_allclose(
        got, flat @ compute_signs(np.asarray(dense.kernel)), rtol=1e-4, atol=1e-4
    )


@settings(max_examples=80, deadline=None)
@given(
    members=st.integers(1, 9),
    batch=st.integers(1, 40),
    share=st.floats(0, 1),
    most=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_at_least_one_member_remains(members, batch, share, most, seed) -> None:
    fit_settings = Fit(drop_share=share, drop_most=most)
    mask = draw_member_mask(np.random.default_rng(seed), batch, members, fit_settings)
    assert mask.shape == (batch, members)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    assert (mask.sum(1) >= max(1, members - int(most * members))).all()
    if share == 0:
        assert mask.all()


def test_the_share_of_samples_that_lose_members() -> None:
    mask = draw_member_mask(np.random.default_rng(0), 4000, 6, Fit(drop_share=0.35, drop_most=0.67))
    hurt = mask[mask.sum(1) < 6]
    assert len(hurt) / 4000 == pytest.approx(0.35, abs=0.03)
    assert sorted(set(hurt.sum(1))) == [2, 3, 4, 5]
    assert mask.mean(0) == pytest.approx([mask.mean()] * 6, abs=0.03)  # no member more than others


def reference_loss(exits, labels, view_labels, classes, fit_settings) -> float:
    def cross_entropy(scores, label):
        target = np.full(classes, fit_settings.label_smoothing / classes)
        target[label] += 1 - fit_settings.label_smoothing
        scores = scores.astype(np.float64)
        return -(target * (scores - np.log(np.exp(scores).sum()))).sum()

    total = 0.0
    for tier, scores in exits.items():
        weight = fit_settings.weights.get(tier, 0.0)
        if tier == "device":
            each = [
                cross_entropy(scores[n, i], view_labels[n, i])
                for n, i in np.argwhere(view_labels >= 0)
            ]
            total += weight * (np.mean(each) if each else 0.0)
        else:
            each = [cross_entropy(scores[n], labels[n]) for n in range(len(labels))]
            total += weight * np.mean(each)
    return total


@pytest.mark.parametrize("tiers", [("cloud",), ("device", "local", "edge", "cloud")])
@pytest.mark.parametrize("seen", [0.0, 0.5, 1.0])
def test_the_joint_loss_sums_all_exits_and_ignores_absent_views(tiers, seen) -> None:
    generator = np.random.default_rng(3)
    samples, members, classes = 12, 4, 3
    labels = generator.integers(0, classes, samples).astype(np.int32)
    there = generator.random((samples, members)) < seen
    view_labels = np.where(there, labels[:, None], -1).astype(np.int32)
    fit_settings = Fit(label_smoothing=0.07, weights={"device": 0.4, "edge": 0.8, "cloud": 1.3})
    exits = {
        tier: generator.normal(
            0, 2, (samples, members, classes) if tier == "device" else (samples, classes)
        ).astype(np.float32)
        for tier in tiers
    }

    def loss():
        return float(compute_joint_loss(exits, labels, view_labels, classes, fit_settings))

    assert loss() == pytest.approx(
        reference_loss(exits, labels, view_labels, classes, fit_settings), 1e-5
    )
    if "device" in exits:
        before = loss()
        exits["device"][~there] = 1e3  # scores of absent views do not matter
        assert loss() == before


def test_no_augmentation_leaves_images_as_they_are() -> None:
    images = np.random.default_rng(4).integers(1, 255, (2, 3, 16, 16, 3), np.uint8)
    images[0, 1] = 0
    numbers = draw(np.random.default_rng(5), NONE, 2, 3, (16, 16))
    unchanged = apply(tf.constant(images), numbers, 0.0, (16, 16, 3))
    np.testing.assert_allclose(unchanged, images, atol=0.05)


@pytest.mark.parametrize("size", [(16, 40), (40, 16)])
def test_an_image_that_is_not_square_is_mirrored_at_its_middle(size: tuple[int, int]) -> None:
    images = np.random.default_rng(4).integers(1, 255, (8, 2, *size, 3), np.uint8)
    flipping = msgspec.structs.replace(NONE, flip=True)
    numbers = draw(np.random.default_rng(5), flipping, 8, 2, size)
    found = apply(tf.constant(images), numbers, 0.0, (*size, 3)).numpy()
    mirrored = images[..., ::-1, :]
    each = range(8 * 2)
    of = [a.reshape(16, *size, 3).astype(float) for a in (found, images, mirrored)]
    kept = [bool(np.allclose(of[0][n], of[1][n], atol=0.05)) for n in each]
    turned = [bool(np.allclose(of[0][n], of[2][n], atol=0.05)) for n in each]
    assert any(kept)
    assert any(turned)
    assert all(a or b for a, b in zip(kept, turned, strict=True))


def test_blank_views_stay_blank() -> None:
    images = np.random.default_rng(4).integers(1, 255, (4, 3, 16, 16, 3), np.uint8)
    images[:, 1] = 0
    augmentation = Fit().augmentation
    changed = apply(
        tf.constant(images),
        draw(np.random.default_rng(5), augmentation, 4, 3, (16, 16)),
        0.02,
        (16, 16, 3),
    )
    changed = changed.numpy()
    assert not changed[:, 1].any()
    assert changed[:, [0, 2]].any(axis=(2, 3, 4)).all()
    assert changed.min() >= 0
    assert changed.max() <= 255


# ------------------------------------------------------------- user sections

HOOKS = """
import keras
from keras import layers

def good(place, shape, classes):
    inputs = layers.Input(shape)
    maps = layers.Conv2D(2, 3, 4, "same")(inputs)
    scores = layers.Dense(classes)(layers.Flatten()(maps))
    return keras.Model(inputs, scores if place == "cloud" else [scores, maps])

def one_output(place, shape, classes):
    inputs = layers.Input(shape)
    return keras.Model(inputs, layers.Dense(classes)(layers.Flatten()(inputs)))

def other_classes(place, shape, classes):
    return good(place, shape, classes + 1)

def no_model(place, shape, classes):
    return "a model"
"""


@pytest.fixture
def _hooks(tmp_path, monkeypatch) -> None:
    (tmp_path / "made_hooks.py").write_text(HOOKS)
    monkeypatch.syspath_prepend(tmp_path)


def network(**sections: str) -> Network:
    return Network(make_configuration("e", 2), Architecture(sections=sections), (16, 16, 3), 3)


@pytest.mark.usefixtures("_hooks")
def test_a_user_section_replaces_the_default() -> None:
    built = network(device="made_hooks:good", cloud="made_hooks:good")
    assert built.device_features == (4, 4, 2)
    assert [type(layer) for layer in built.cloud.layers] == [
        layers.InputLayer,
        layers.Conv2D,
        layers.Flatten,
        layers.Dense,
    ]
    exits = built(tf.zeros((1, 2, 16, 16, 3)), tf.ones((1, 2)), training=False)
    assert {tier: tuple(scores.shape) for tier, scores in exits.items()} == {
        "device": (1, 2, 3),
        "local": (1, 3),
        "edge": (1, 3),
        "cloud": (1, 3),
    }


@pytest.mark.usefixtures("_hooks")
@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("made_hooks:one_output", "expected a keras.Model"),
        ("made_hooks:other_classes", r"scores \[3\]"),
        ("made_hooks:no_model", "expected a keras.Model"),
        ("made_hooks:missing", "expected package.module:function"),
        ("made_hooks.nothing:good", "expected package.module:function"),
        ("no_such_module:good", "expected package.module:function"),
        ("made_hooks:", "expected package.module:function"),
        (":good", "expected package.module:function"),
        ("..x:good", "expected package.module:function"),
        ("made_hooks:HOOK", "expected package.module:function"),
        ("made_hooks:__name__", "expected package.module:function"),
    ],
)
def test_a_hook_that_does_not_fit_is_refused(hook, words) -> None:
    with pytest.raises(ConfigError, match=words):
        network(device=hook)


def test_larger_images_are_scaled_down_like_test_images():
    """Without any other change, the result is the means of 2x2 pixels."""
    generator = np.random.default_rng(8)
    fine = generator.integers(0, 256, (2, 3, 32, 32, 3), np.uint8)
    numbers = draw(np.random.default_rng(5), NONE, 2, 3, (16, 16), (32, 32))
    means = fine.reshape(2, 3, 16, 2, 16, 2, 3).mean(axis=(3, 5))
    np.testing.assert_allclose(apply(tf.constant(fine), numbers, 0.0, (16, 16, 3)), means, atol=0.1)
