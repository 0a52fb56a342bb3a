"""Properties of single data sets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddnn.data import ABSENT, label_views, load, load_samples, measure_jpeg_bytes, scenes
from ddnn.data.dataset import draw_presence
from ddnn.data.eth80 import FIELD_PRESENCE
from ddnn.data.rendered import draw_split_once
from ddnn.data.scenes import raster, square
from ddnn.errors import ConfigError
from tests.unit.data.sample_files import make_cifar10, make_directory, make_eth80, make_mvmc

# Of the first samples of the test split, seed 0; VISIBLE and MEANS of scenes.
LABELS = {
    "scenes": [0, 0, 2, 0, 0, 2, 0, 0],
    "scenes5": [0, 1, 3, 0, 0, 4, 0, 0],
    "scenes8": [0, 2, 5, 0, 1, 7, 1, 1],
}
VISIBLE = ["####.#", "...###", "#..###", "#..##.", ".###..", "##.###", "####.#", "###..#"]
MEANS = [64.9, 53.5, 80.0, 50.0, 60.8, 71.5, 79.2, 57.6]


class TestScenes:
    def test_a_split_begins_with_every_smaller_one(self) -> None:
        large = scenes.draw_split("train", seed=3, samples=70)
        small = scenes.draw_split("train", seed=3, samples=20)
        np.testing.assert_array_equal(small.images, large.images[:20])

    def test_other_seeds_give_other_samples(self) -> None:
        one, other = (scenes.draw_split("test", seed=seed, samples=10) for seed in (0, 1))
        assert one.images.tobytes() != other.images.tobytes()

    def test_each_camera_sees_about_half_of_the_samples(self) -> None:
        split = scenes.draw_split("train", samples=300)
        seen = split.view_labels != ABSENT
        assert (seen.mean(axis=0) > 0.40).all()
        assert (seen.mean(axis=0) < 0.80).all()
        assert np.ptp(seen.mean(axis=0)) > 0.05
        assert seen.sum(axis=1).min() >= scenes.MIN_VIEWS
        assert (np.bincount(split.labels, minlength=3) > 60).all()

    def test_a_nearer_face_hides_a_farther_one(self) -> None:
        """Of two overlapping squares the one painted last is visible."""
        square = np.array([(2, 2), (12, 2), (12, 12), (2, 12), (2, 12), (2, 12)], np.float32)
        spans = raster.find_spans(np.stack([square, square + 4]), 20)
        view, rank = np.array([0, 0]), np.array([1, 2])
        (seen,) = raster.paint(view, rank, spans, 1, 20)
        assert seen[5, 5] == 1
        assert seen[9, 9] == 2
        assert seen[19, 19] == 0
        assert (seen == 2).sum() == 100
        (first,) = raster.paint(view, rank, spans.take(spans.face == 0), 1, 20)
        assert (first > 0).sum() == 100
        np.testing.assert_array_equal(first[seen != 2], seen[seen != 2])

    def test_the_target_of_a_camera_is_projected_to_the_middle(self) -> None:
        targets = np.array([camera.target for camera in square.CAMERAS], np.float32)
        pixels, depth = raster.project(targets[:, None], np.arange(6), square.RIG)
        assert (depth > 10).all()
        np.testing.assert_allclose(pixels, 0, atol=1e-3)

    def test_the_seed_determines_the_samples(self) -> None:
        """The images themselves only within rounding, which depends on the processor."""
        for name, labels in LABELS.items():
            assert scenes.draw_split("test", name, samples=8).labels.tolist() == labels
        split = scenes.draw_split("test", samples=8)
        visible = np.where(split.view_labels != ABSENT, "#", ".")
        assert ["".join(row) for row in visible] == VISIBLE
        np.testing.assert_allclose(split.images.mean(axis=(1, 2, 3, 4)), MEANS, atol=0.5)

    def test_every_kind_occurs_and_single_views_show_it(self) -> None:
        split = scenes.draw_split("train", "scenes8", samples=200)
        assert (np.bincount(split.labels, minlength=8) > 10).all()
        assert len(split.labels) == 200
        seen = split.view_labels != ABSENT
        assert seen.sum(axis=1).min() >= scenes.MIN_VIEWS

    def test_a_split_is_rendered_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DDNN_HOME", str(tmp_path))
        first = load_samples("scenes5", samples=12)
        monkeypatch.setattr(scenes, "draw_split", None)  # would raise
        again = load_samples("scenes5", samples=12)
        np.testing.assert_array_equal(again.images, first.images)
        np.testing.assert_array_equal(again.view_labels, first.view_labels)
        again.images[0] = 0  # private
        assert load_samples("scenes5", samples=12).images[0].any()

    def test_without_a_home_it_is_rendered_each_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("DDNN_HOME", str(tmp_path / "file"))
        split = load_samples("scenes5", samples=3)
        np.testing.assert_array_equal(
            split.images, scenes.draw_split("test", "scenes5", samples=3).images
        )

    def test_bounds(self) -> None:
        with pytest.raises(ConfigError, match="samples"):
            load("scenes", samples=(0, 1, 1))


class TestTiles:
    def test_six_cameras_see_one_tile_each(self, tmp_path: Path) -> None:
        """Every pixel of the image is in exactly one tile, where the tile of its place is."""
        path = make_cifar10(tmp_path / "made")
        whole, tiles = load(f"cifar10:{path}").test, load(f"cifar10-tiles:{path}").test
        assert tiles.images.shape == (len(whole), 6, 32, 32, 3)
        for view in range(6):
            row, column = divmod(view, 3)
            part = whole.images[:, 0, 16 * row : 16 * row + 16, (0, 10, 21)[column] :][
                :, :, : (10, 11, 11)[column]
            ]
            np.testing.assert_array_equal(tiles.images[:, view, ::2, 0], part[:, :, 0])
            np.testing.assert_array_equal(tiles.images[:, view, 31, 31], part[:, 15, -1])
            assert {p.tobytes() for p in tiles.images[0, view].reshape(-1, 3)} == {
                p.tobytes() for p in part[0].reshape(-1, 3)
            }


class TestEth80:
    def test_folds_are_by_object(self, tmp_path: Path) -> None:
        path = make_eth80(tmp_path / "made.npz")
        for test, validation, train in ((5, 1, {2, 3}), (3, 5, {1, 2}), (1, 2, {3, 5})):
            fold = load(f"eth80:{path}", objects_test=test)
            assert set(fold.test.groups) == {test}
            assert set(fold.validation.groups) == {validation}
            assert set(fold.train.groups) == train
        assert set(load(f"eth80:{path}").test.groups) == {5}
        with pytest.raises(ConfigError, match=r"\[1, 2, 3, 5\]"):
            load(f"eth80:{path}", objects_test=4)

    def test_a_file_of_one_object_can_only_be_evaluated(self, tmp_path: Path) -> None:
        path = make_eth80(tmp_path / "one.npz", objects=(10,))
        with pytest.raises(ConfigError, match="three"):
            load(f"eth80:{path}")
        samples = load_samples(f"eth80:{path}")
        assert set(samples.groups) == {10}
        assert len(load_samples(f"eth80:{path}", [10])) == len(samples) == 12
        with pytest.raises(ConfigError, match="10"):
            load_samples(f"eth80:{path}", [9])

    def test_scaling_down_averages_four_pixels(self, tmp_path: Path) -> None:
        path = make_eth80(tmp_path / "made.npz")
        full, half = (load_samples(f"eth80:{path}", size=size).images for size in (64, 32))
        mean = full.reshape(-1, 32, 2, 32, 2, 3).astype(float).mean(axis=(2, 4))
        assert np.abs(half.reshape(-1, 32, 32, 3) - mean).max() <= 0.5
        with pytest.raises(ConfigError, match="size"):
            load(f"eth80:{path}", size=48)

    def test_rigs_are_different_directions_of_one_object(self, tmp_path: Path) -> None:
        pool = load(f"eth80:{make_eth80(tmp_path / 'made.npz')}").augment_pool
        assert pool is not None
        images, labels = pool.draw(np.random.default_rng(0), 50, 6)
        again, _ = pool.draw(np.random.default_rng(0), 50, 6)
        np.testing.assert_array_equal(images, again)
        of_image = {
            image.tobytes(): number for number, rows in enumerate(pool.images) for image in rows
        }
        for sample, label in zip(images, labels, strict=True):
            objects = {of_image[view.tobytes()] for view in sample}
            assert len(objects) == 1
            assert pool.labels[objects.pop()] == label
            assert len({view.tobytes() for view in sample}) == 6
        with pytest.raises(ConfigError, match="directions"):
            pool.draw(np.random.default_rng(0), 5, 9)

    def test_the_field_variant_blanks_views_of_drawn_rigs(self, tmp_path: Path) -> None:
        path = make_eth80(tmp_path / "made.npz")
        pool = load(f"eth80-field:{path}").augment_pool
        assert pool is not None
        images, labels = pool.draw(np.random.default_rng(0), 400, 6)
        seen = (label_views(images, labels) != ABSENT).mean(axis=0)
        np.testing.assert_allclose(seen, FIELD_PRESENCE, atol=0.1)
        with pytest.raises(ConfigError, match="cameras"):
            load(f"eth80-field:{path}", presence=(0.5, 0.5))

    def test_drawn_presence_has_the_given_rates(self) -> None:
        seen = draw_presence(np.random.default_rng(0), 20_000, FIELD_PRESENCE)
        assert seen.any(axis=1).all()
        np.testing.assert_allclose(seen.mean(axis=0), FIELD_PRESENCE, atol=0.02)
        for rates in ((0.0, 0.0), (0.5, 1.5), (np.nan, 0.5), ()):
            with pytest.raises(ConfigError, match="presence"):
                draw_presence(np.random.default_rng(0), 5, rates)

    @pytest.mark.needs_data
    def test_the_real_photographs_have_the_documented_sizes(self, eth80_path: Path) -> None:
        fold = load(f"eth80:{eth80_path}")
        assert len(fold.classes) == 8
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (896, 128, 128)
        assert fold.image_shape == (32, 32, 3)
        assert (set(fold.test.groups), set(fold.validation.groups)) == ({9}, {1})
        assert fold.augment_pool is not None
        assert fold.augment_pool.images.shape == (56, 41, 32, 32, 3)
        samples = load_samples(f"eth80:{eth80_path}", [9])
        np.testing.assert_array_equal(samples.images, fold.test.images)


class TestMvmc:
    def test_the_splits_have_the_sizes_of_the_paper(self, tmp_path: Path) -> None:
        path = make_mvmc(tmp_path / "made.npz", samples=851, side=2)
        dataset = load(f"mvmc:{path}")
        assert len(dataset.train) + len(dataset.validation) == 680
        assert len(dataset.test) == 171

    def test_the_split_is_fixed(self, tmp_path: Path) -> None:
        path = make_mvmc(tmp_path / "made.npz", side=4)
        one, other = (load(f"mvmc:{path}", seed=seed) for seed in (0, 1))
        np.testing.assert_array_equal(one.test.images, other.test.images)

    def test_pixels_are_scaled(self, tmp_path: Path) -> None:
        path = make_mvmc(tmp_path / "made.npz", side=4)
        with np.load(path) as file:
            x = file["X"]
        images = load_samples(f"mvmc:{path}").images
        assert np.abs(images.transpose(0, 1, 4, 2, 3) - x * 255).max() <= 0.5 + 1e-3

    def test_samples_that_no_camera_sees_are_left_out(self, tmp_path: Path) -> None:
        path = make_mvmc(tmp_path / "made.npz", side=4)
        with np.load(path) as file:
            x, y = file["X"], file["y"]
        y[3] = -1
        np.savez(path, X=x, y=y)
        assert len(load_samples(f"mvmc:{path}")) == len(y) - 1


class TestUserData:
    def test_a_missing_file_is_a_blank_view(self, tmp_path: Path) -> None:
        make_directory(tmp_path)
        split = load_samples(f"directory:{tmp_path}")
        assert split.images.shape == (40, 3, 32, 32, 3)
        names = ("camera1", "camera2", "camera10")
        present = [
            [any((tmp_path / camera / label).glob(f"{number:03}.*")) for camera in names]
            for label in ("cat", "dog")
            for number in range(20)
        ]
        np.testing.assert_array_equal(split.view_labels != ABSENT, present)

    def test_every_split_has_every_class_in_proportion(self, tmp_path: Path) -> None:
        dataset = load(f"directory:{make_directory(tmp_path / 'made')}")
        counts = [
            np.bincount(split.labels).tolist()
            for split in (dataset.train, dataset.validation, dataset.test)
        ]
        assert counts == [[14, 14], [3, 3], [3, 3]]

    def test_other_seeds_give_other_splits(self, tmp_path: Path) -> None:
        make_directory(tmp_path)
        one, other = (load(f"directory:{tmp_path}", seed=seed) for seed in (0, 1))
        assert one.test.images.tobytes() != other.test.images.tobytes()


def test_jpeg_bytes_equal_the_size_of_a_file() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3), np.uint8)
    sizes = measure_jpeg_bytes(images)
    assert sizes.shape == (2, 3)
    buffer = io.BytesIO()
    Image.fromarray(images[1, 2]).save(buffer, "JPEG", quality=90)
    assert sizes[1, 2] == len(buffer.getvalue())
    assert (measure_jpeg_bytes(images, quality=30) < sizes).all()
    with pytest.raises(ConfigError, match="uint8"):
        measure_jpeg_bytes(images.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="quality"):
        measure_jpeg_bytes(images, quality=0)


@pytest.mark.parametrize("content", [b"", b"cut off"])
def test_what_was_kept_and_cannot_be_read_is_rendered_again(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, files may be there without their content."""
    monkeypatch.setenv("DDNN_HOME", str(tmp_path))
    first = draw_split_once("test", "scenes", seed=1, samples=3)
    (kept,) = (tmp_path / "rendered").glob("*/images.npy")
    whole = kept.read_bytes()
    kept.write_bytes(content)
    again = draw_split_once("test", "scenes", seed=1, samples=3)
    np.testing.assert_array_equal(again.images, first.images)
    assert kept.read_bytes() == whole
