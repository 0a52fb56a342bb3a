"""Crops and flips, cached feature maps, teachers of photographs, students of one part averaged."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from ddnn.training.checkpoints import Checkpoints
from ddnn.training.split import FeatureSplit, split_features
from ddnn.training.students.distil import Distillation
from ddnn.training.students.examples import compute_batches
from ddnn.training.students.failout import FilledStudent, measure_missing
from ddnn.training.students.family import Backbone, build_student
from ddnn.training.students.images import (
    PADDING_PX,
    CachedCrops,
    CroppedImages,
    crop_images,
    draw_crops,
    scale_images,
)
from ddnn.training.students.teacher import (
    TeacherTraining,
    build_teacher,
    pool_classifier,
    train_teacher,
)
from ddnn.training.students.unified import UnifiedStudent

SIDE = 16
CENTRE = [PADDING_PX, PADDING_PX, 0]


def draw_images(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return images, (np.arange(count) % 3).astype(np.int32)


def build_network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_teacher(Backbone("mobile", 1, 1, 2), (SIDE, SIDE, 3), 3)


@pytest.fixture(scope="module")
def split() -> FeatureSplit:
    return split_features(build_network())


def test_crops_shift_and_flip_within_a_mirrored_margin() -> None:
    images, _ = draw_images(4)
    crops = np.array([CENTRE, [PADDING_PX, PADDING_PX, 1], [PADDING_PX + 2, PADDING_PX - 3, 0]])
    same, flipped, shifted = crop_images(images[:3], crops)
    np.testing.assert_array_equal(same, images[0])
    np.testing.assert_array_equal(flipped, images[1][:, ::-1])
    np.testing.assert_array_equal(shifted[:-2, 3:], images[2][2:, :-3])
    np.testing.assert_array_equal(shifted[-1, 3:], images[2][-3, :-3])  # mirrored
    np.testing.assert_array_equal(shifted[:-2, 2], images[2][2:, 1])


def test_drawn_crops_reach_all_offsets() -> None:
    crops = draw_crops(np.random.default_rng(0), (2000,))
    for axis, most in enumerate((2 * PADDING_PX, 2 * PADDING_PX, 1)):
        assert set(crops[:, axis].tolist()) == set(range(most + 1))


def test_cached_feature_maps_are_those_of_the_crops(split: FeatureSplit, tmp_path: Path) -> None:
    images, labels = draw_images()
    file = tmp_path / "z.npy"
    made = CachedCrops.of(split.features, images, labels, 3, file, 7)
    np.testing.assert_array_equal(made.crops[0], [CENTRE] * len(images))
    again = CachedCrops.of(clear_weights(split), images, labels, 3, file, 7)  # reads the file
    inputs, given, z = again.draw(np.random.default_rng(1), 8)
    assert inputs.min() >= -1
    assert inputs.max() <= 1
    np.testing.assert_allclose(z, compute_batches(split.features, inputs), rtol=1e-4, atol=1e-5)
    scaled = {scale_images(image).tobytes() for image in images}
    drawn = [again.draw(np.random.default_rng(seed), 8)[0] for seed in range(5)]
    assert any(one.tobytes() in scaled for batch in drawn for one in batch)
    assert not all(one.tobytes() in scaled for batch in drawn for one in batch)
    assert given.shape == (8,)
    with pytest.raises(ValueError, match="shape"):
        CachedCrops.of(split.features, images, labels, 2, file, 7)


def clear_weights(split: FeatureSplit) -> keras.Model:
    """A network of the same shapes with other weights."""
    model = keras.models.clone_model(split.features)
    model.set_weights([weight * 0 for weight in model.get_weights()])
    return model


def test_new_crops_have_the_teachers_feature_maps(split: FeatureSplit) -> None:
    images, labels = draw_images()
    source = CroppedImages(images, labels, split.features)
    inputs, _, z = source.draw(np.random.default_rng(1), 8)
    np.testing.assert_allclose(z, compute_batches(split.features, inputs), rtol=1e-4, atol=1e-5)
    assert (source.draw(np.random.default_rng(2), 8)[0] != inputs).any()


def test_the_classifier_of_spatial_means_gives_the_same_scores(split: FeatureSplit) -> None:
    z = np.random.default_rng(0).normal(size=(5, *split.shape)).astype(np.float32)
    means = z.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(
        pool_classifier(split)(means), split.classifier(z), rtol=1e-5, atol=1e-6
    )


def test_a_teacher_that_was_killed_goes_on(tmp_path: Path) -> None:
    images, labels = draw_images()
    settings = Distillation(steps=4, batch=8, checkpoint_steps=2)
    whole, broken, resumed = build_network(), build_network(), build_network()
    train_teacher(whole, TeacherTraining(images, labels, settings))

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    checkpoints = Checkpoints(tmp_path, "job")
    with pytest.raises(KeyboardInterrupt):
        train_teacher(broken, TeacherTraining(images, labels, settings, checkpoints, stop))
    steps: list[int] = []
    train_teacher(
        resumed,
        TeacherTraining(
            images, labels, settings, checkpoints, lambda what, done, total: steps.append(done)
        ),
    )
    assert steps == [3, 4]
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert any(
        (one != other).any()
        for one, other in zip(whole.get_weights(), build_network().get_weights(), strict=True)
    )


def test_students_of_one_part_are_averaged(split: FeatureSplit) -> None:
    height, width, filters = split.shape
    parts = (tuple(range(1, filters, 2)), tuple(range(0, filters, 2)))
    of = (0, 1, 0)  # the part of each student
    students = tuple(
        build_student(Backbone("conv", 1, 4), (SIDE, SIDE, 3), (height, width, len(parts[part])))
        for part in of
    )
    unified = UnifiedStudent(students, tuple(parts[part] for part in of), split.classifier)
    assert unified.parts == parts
    inputs = scale_images(draw_images(6)[0])
    portions = [np.asarray(portion) for portion in unified.compute_portions(inputs)]
    joined = np.asarray(unified.join(portions))
    np.testing.assert_allclose(
        joined[..., list(parts[0])], (portions[0] + portions[2]) / 2, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(joined[..., list(parts[1])], portions[1])
    targets = unified.split(joined)
    np.testing.assert_array_equal(targets[0], targets[2])
    filled = FilledStudent(unified, "zero", np.zeros(filters, np.float32))
    measured = measure_missing(filled, joined, lambda outputs: {"scores": 0.0})
    assert set(measured) == {0, 1, 2, 3}  # sets of parts, not of students
