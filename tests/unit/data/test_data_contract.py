"""Properties of every data set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from ddnn.data import ABSENT, NAMES, Dataset, Split, load, load_samples
from ddnn.data.registry import RENDERED
from ddnn.errors import ConfigError

MakeSpec = Callable[[str], str]


@cache
def load_cached(spec: str, seed: int = 0) -> Dataset:
    return load(spec, seed=seed, samples=(50, 20, 20) if spec in RENDERED else None)


@pytest.fixture(params=NAMES)
def spec(request: pytest.FixtureRequest, make_spec: MakeSpec) -> str:
    return make_spec(request.param)


def list_splits(dataset: Dataset) -> tuple[Split, Split, Split]:
    return dataset.train, dataset.validation, dataset.test


def check_split(split: Split, classes: int) -> None:
    n, views, height, width, channels = split.images.shape
    assert n == len(split) > 0
    assert channels == 3
    assert min(views, height, width) >= 1
    assert split.images.dtype == np.uint8
    for array, shape in (
        (split.labels, (n,)),
        (split.view_labels, (n, views)),
        (split.groups, (n,)),
    ):
        assert array.dtype == np.int32
        assert array.shape == shape
    assert split.labels.min() >= 0
    assert split.labels.max() < classes
    blank = ~split.images.any(axis=(2, 3, 4))
    np.testing.assert_array_equal(blank, split.view_labels == ABSENT)
    np.testing.assert_array_equal(split.labels, split.view_labels.max(axis=1))


def test_shapes_and_blank_views(spec: str) -> None:
    dataset = load_cached(spec)
    assert [split.name for split in list_splits(dataset)] == ["train", "validation", "test"]
    assert dataset.name == spec.partition(":")[0]
    assert len(set(dataset.classes)) == len(dataset.classes) >= 2
    for split in list_splits(dataset):
        check_split(split, len(dataset.classes))
        assert split.images.shape[1:] == (dataset.views, *dataset.image_shape)


def test_same_seed_same_bytes(spec: str) -> None:
    again = load(spec, samples=(50, 20, 20) if spec in RENDERED else None)
    for one, other in zip(list_splits(load_cached(spec)), list_splits(again), strict=True):
        for field in ("images", "labels", "view_labels", "groups"):
            assert getattr(one, field).tobytes() == getattr(other, field).tobytes()


def test_splits_share_no_sample_and_no_group(spec: str) -> None:
    samples = [
        {image.tobytes() for image in split.images} for split in list_splits(load_cached(spec))
    ]
    groups = [set(split.groups.tolist()) - {ABSENT} for split in list_splits(load_cached(spec))]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not samples[a] & samples[b]
        assert not groups[a] & groups[b]


def test_fewer_views_are_those_of_the_first_cameras(spec: str) -> None:
    small = (50, 20, 20) if spec in RENDERED else None
    one = load(spec, views=1, samples=small)
    assert one.views == 1
    np.testing.assert_array_equal(one.test.images[:, 0], load_cached(spec).test.images[:, 0])
    with pytest.raises(ConfigError, match="cameras"):
        load(spec, views=7, samples=small)
    if spec not in RENDERED:  # another rendering would cost time and test nothing new
        with pytest.raises(ConfigError, match="cameras"):
            load(spec, views=0)


def test_samples_to_evaluate_are_all_samples_of_the_file(spec: str) -> None:
    split = load_samples(spec, samples=20 if spec in RENDERED else None)
    check_split(split, len(load_cached(spec).classes))
    if spec in RENDERED:
        np.testing.assert_array_equal(split.images, load_cached(spec).test.images)
    else:
        assert len(split) == sum(len(part) for part in list_splits(load_cached(spec)))


def test_options_of_other_data_sets_are_refused(spec: str) -> None:
    if not spec.startswith("eth80"):
        with pytest.raises(ConfigError, match="objects_test"):
            load(spec, objects_test=1)
    if spec not in RENDERED:
        with pytest.raises(ConfigError, match="samples"):
            load(spec, samples=(1, 1, 1))


def test_take_and_rename(spec: str) -> None:
    split = load_cached(spec).test
    np.testing.assert_array_equal(split.take([1, 0]).images, split.images[[1, 0]])
    assert len(split.take([])) == 0
    assert len(split.take(split.labels == split.labels[0])) >= 1
    assert split.rename("other").name == "other"


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(ConfigError) as caught:
        load("imagenet:/tmp")
    assert all(name in str(caught.value) for name in NAMES)


def test_default_files_come_from_the_environment(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_spec("eth80").partition(":")[2]
    monkeypatch.delenv("DDNN_DATA", raising=False)
    with pytest.raises(ConfigError, match="DDNN_DATA"):
        load("eth80")
    monkeypatch.setenv("DDNN_DATA", path.rpartition("/")[0])
    assert len(load("eth80").test) == len(load(f"eth80:{path}").test)


@pytest.mark.parametrize("spec", ["directory", "npz:", "scenes:100"])
def test_a_data_set_with_files_requires_a_path(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"path|PATH"):
        load(spec)


@pytest.mark.parametrize("option", [{"seed": -1}, {"size": 0}, {"size": 513}])
def test_numbers_out_of_bounds_are_refused(option: dict[str, int], make_spec: MakeSpec) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        load(make_spec("directory"), **option)  # type: ignore[arg-type]


def test_importing_needs_numpy_only() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys("
        "['PIL', 'scipy', 'tensorflow', 'keras'])); import ddnn.data"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
