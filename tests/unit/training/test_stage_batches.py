"""A batch's number determines it; an epoch has each sample once."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.training.stages.batches import NumberedBatches, join_views, make_batches
from tests.unit.training.small_networks import draw_dataset


def make(batch: int = 4, seed: int = 0, crops: bool = False) -> NumberedBatches:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (10, 8, 8, 3), np.uint8)
    return NumberedBatches(images, np.arange(10, dtype=np.int32), batch, seed, crops)


def test_an_epoch_has_each_sample_at_most_once_and_the_next_another_order():
    batches = make()
    assert batches.batches_per_epoch == 2
    epochs = [
        np.concatenate([batches.make(2 * epoch + index)[1] for index in range(2)])
        for epoch in range(3)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 8
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize("crops", [False, True])
def test_a_batch_is_made_again_whatever_was_made_before(crops):
    batches, again = make(crops=crops), make(crops=crops)
    expected = [batches.make(number) for number in range(6)]
    for number in (5, 0, 3):
        for a, b in zip(again.make(number), expected[number], strict=True):
            np.testing.assert_array_equal(a, b)


def test_images_belong_to_their_labels_and_crops_differ_between_epochs():
    plain, cropped = make(10), make(10, crops=True)
    images, labels = plain.make(3)
    np.testing.assert_array_equal(images, plain.images[labels])
    orders = [cropped.make(number) for number in range(2)]
    sorted_images = [images[np.argsort(labels)] for images, labels in orders]
    assert sorted_images[0].shape == plain.images.shape
    assert not np.array_equal(*sorted_images)


def test_seeds_give_other_orders():
    assert not np.array_equal(make(10).make(0)[1], make(10, seed=1).make(0)[1])


def test_views_are_the_channels_of_one_image():
    dataset = draw_dataset()
    images = dataset.train.images
    joined = join_views(images)
    assert joined.shape == (len(images), *images.shape[2:4], 3 * images.shape[1])
    np.testing.assert_array_equal(joined[..., 3:6], images[:, 1])
    batches = make_batches(dataset.train, 5)
    assert batches.make(0)[0].shape == (5, *joined.shape[1:])


def test_batches_larger_than_the_split_are_refused():
    for batch in (0, 11):
        with pytest.raises(ConfigError, match="expected 1 to 10"):
            make(batch)
