"""Folders of images: what is found is reported, what cannot be meant is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddnn.data import ABSENT, FolderRequest, describe_dataset, load, load_samples
from ddnn.data.pairing import parse_time
from ddnn.errors import ConfigError


def write(path: Path, camera: str, label: str, names: Sequence[str], level: int = 90) -> None:
    folder = path / camera / label
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / name)


def write_two(path: Path, labels: Sequence[str] = ("down", "up"), count: int = 8) -> Path:
    """Write two cameras that see every sample."""
    for camera in ("cam1", "cam2"):
        for number, label in enumerate(labels):
            write(path, camera, label, [f"{i}.png" for i in range(count)], 40 + 40 * number)
    return path


def test_what_was_found_is_reported(tmp_path: Path) -> None:
    write_two(tmp_path, count=10)
    write(tmp_path, "cam1", "rare", ["0.png"])
    (tmp_path / "cam1" / "up" / "._0.png").write_bytes(b"of macOS")
    (tmp_path / "cam1" / "up" / "7.heic").write_bytes(b"of a telephone")
    (tmp_path / "cam2" / "up" / "9.png").unlink()
    (tmp_path / "__MACOSX" / "cam1").mkdir(parents=True)
    (tmp_path / "desktop.ini").write_text("x")
    lines = describe_dataset(load(f"directory:{tmp_path}"))
    text = "\n".join(lines)
    assert lines[0].split() == ["class", "samples", "cam1", "cam2"]
    assert [line.split() for line in lines[1:4]][:2] == [
        ["down", "6/2/2", "6/2/2", "6/2/2"],
        ["rare", "1/0/0", "1/0/0", "0/0/0"],
    ]
    assert "2 of 21 samples lack a view (paired by name), 2 are seen by one camera only" in text
    assert "1 passed over (ending .heic is not read), such as cam1/up/7.heic" in text
    assert "2 passed over (hidden, or of the system), such as __MACOSX" in text
    assert "1 passed over (not in a folder <camera>/<class>), such as desktop.ini" in text
    assert "cameras: cam1 is cam1, cam2 is cam2" in text
    assert "no validation sample of rare" in text
    assert "few training samples of down (6), rare (1), up (6)" in text
    assert "down has 6.0 times as many training samples as rare" in text


def test_every_format_of_pillow_is_read(tmp_path: Path) -> None:
    names = ("0.png", "1.webp", "2.tif", "3.gif", "4.JPG", "5.bmp", "6.jp2", "7.ppm", "8.tga")
    for camera in ("cam1", "cam2"):
        for label, level in (("down", 40), ("up", 80)):
            write(tmp_path, camera, label, names, level)
    split = load_samples(f"directory:{tmp_path}")
    assert len(split) == 2 * len(names)
    assert (
        np.abs(split.images.astype(int) - 40 * (1 + split.labels[:, None, None, None, None])).max()
        < 4
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [("up", "Up"), ("up", "up "), ("é", "e\u0301"), ("a b", "a  b")],
)
def test_classes_that_look_alike_are_refused(one: str, other: str, tmp_path: Path) -> None:
    write(tmp_path, "cam1", one, ["0.png"])
    write(tmp_path, "cam2", other, ["0.png"])
    write(tmp_path, "cam1", "down", ["0.png"])
    with pytest.raises(ConfigError, match=r"differ only by case, space or Unicode.*rename"):
        load_samples(f"directory:{tmp_path}")


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    write_two(tmp_path)
    empty = tmp_path / "cam1" / "side"
    empty.mkdir()
    (empty / "0.heic").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"'side' has no image.*\.heic is not read.*add images"):
        load(f"directory:{tmp_path}")


def test_data_one_level_deeper_are_recognized(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_two(tmp_path / part)
    with pytest.raises(ConfigError, match=r"one level deeper: give .*/(train|test)$"):
        load(f"directory:{tmp_path}")


def test_a_black_picture_is_a_view(tmp_path: Path) -> None:
    write_two(tmp_path)
    for camera in ("cam1", "cam2"):
        write(tmp_path, camera, "night", ["0.png", "1.png", "2.png"], 0)
    dataset = load(f"directory:{tmp_path}")
    night = dataset.classes.index("night")
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split.view_labels[split.labels == night] == night).all()
        assert (split.labels == night).sum() == 1
    assert any("6 images are all black" in note for note in dataset.notes)


def test_a_folder_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    write_two(tmp_path)
    os.makedirs(os.fsencode(tmp_path / "cam1") + b"/caf\xe9")
    with pytest.raises(ConfigError, match=r"udce9.*not UTF-8.*rename") as refused:
        load(f"directory:{tmp_path}")
    str(refused.value).encode()


# --------------------------------------------------------------------- pairing


def write_times(path: Path) -> Path:
    for number, camera in enumerate(("cam1", "cam2")):
        for label in ("down", "up"):
            names = [f"{camera}_{1700000000 + 7 * number + 60 * i}.png" for i in range(8)]
            write(path, camera, label, names)
    return path


def test_pictures_that_no_name_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no sample has two views.*--pair-by time or order"):
        load(f"directory:{write_times(tmp_path)}")


@pytest.mark.parametrize("pair_by", ["time", "order"])
def test_pictures_are_paired_by_time_or_order(pair_by: str, tmp_path: Path) -> None:
    write_times(tmp_path)
    folders = FolderRequest(pair_by=pair_by)  # type: ignore[arg-type]
    split = load_samples(f"directory:{tmp_path}", folders=folders)
    assert len(split) == 16
    assert (split.view_labels != ABSENT).all()
    (tmp_path / "cam2" / "up" / f"cam2_{1700000000 + 67}.png").unlink()
    if pair_by == "order":
        with pytest.raises(ConfigError, match=r"up: .*same number.*name or time"):
            load_samples(f"directory:{tmp_path}", folders=folders)
    else:
        split = load_samples(f"directory:{tmp_path}", folders=folders)
        assert len(split) == 16
        assert np.argwhere(split.view_labels == ABSENT).tolist() == [[9, 1]]


@pytest.mark.parametrize(
    ("name", "time_s"),
    [
        ("cam1_1700000000", 1700000000.0),
        ("front-1700000000.25", 1700000000.25),
        ("1700000000250", 1700000000.25),
        ("IMG_20231114_221320", 1700000000.0),
        ("2023-11-14T22-13-20.5", 1700000000.5),
        ("20231114221320", 1700000000.0),
        ("IMG_20231114_221320_250", 1700000000.25),
        ("20231114221320250", 1700000000.25),
        ("IMG_20231114_221320_12", 1700000000.0),  # a counter
    ],
)
def test_times_in_names_are_read(name: str, time_s: float) -> None:
    assert parse_time(Path(f"{name}.png")) == pytest.approx(time_s)


def test_two_pictures_of_a_camera_with_the_same_time_are_refused(tmp_path: Path) -> None:
    for camera in ("cam1", "cam2"):
        for label in ("down", "up"):
            write(tmp_path, camera, label, [f"20231114_221320_{i}.png" for i in range(12)])
    folders = FolderRequest(pair_by="time")
    with pytest.raises(ConfigError, match=r"_0.png and \S+_1.png have the same time.*by name"):
        load_samples(f"directory:{tmp_path}", folders=folders)


@pytest.mark.parametrize("name", ["0001", "20239914_221320", "front"])
def test_names_without_a_time_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no time in its name"):
        parse_time(Path(f"{name}.png"))


# --------------------------------------------------------- classes and cameras


def test_labels_number_the_classes_of_the_bundle(tmp_path: Path) -> None:
    classes = ("bus", "car", "person")
    split = load_samples(
        f"directory:{write_two(tmp_path, ('car', 'person'))}",
        folders=FolderRequest(classes=classes),
    )
    assert sorted(set(split.labels.tolist())) == [1, 2]
    assert set(split.images[split.labels == 1].flat) == {40}
    with pytest.raises(ConfigError, match=r"does not know the classes person"):
        load(f"directory:{tmp_path}", folders=FolderRequest(classes=("bus", "car")))


def test_labels_of_arrays_number_the_classes_of_the_bundle(tmp_path: Path) -> None:
    images = np.full((4, 1, 8, 8, 3), 9, np.uint8)
    file = tmp_path / "own.npz"
    np.savez(file, images=images, labels=[0, 1, 1, 0], classes=["person", "car"])
    folders = FolderRequest(classes=("bus", "car", "person"), shape=(8, 8, 3))
    split = load_samples(f"npz:{file}", folders=folders)
    assert split.labels.tolist() == split.view_labels[:, 0].tolist() == [2, 1, 1, 2]
    with pytest.raises(ConfigError, match=r"samples of person.*knows the classes bus, car"):
        load_samples(f"npz:{file}", folders=FolderRequest(classes=("bus", "car")))


def test_devices_have_the_folders_that_are_given(tmp_path: Path) -> None:
    for level, camera in enumerate(("back", "cam2", "front"), 1):
        for label in ("down", "up"):
            write(tmp_path, camera, label, ["0.png", "1.png"], 10 * level)

    def find(devices: tuple[str, ...], cameras: dict[str, str]) -> list[int]:
        folders = FolderRequest(devices, cameras)
        return load_samples(f"directory:{tmp_path}", folders=folders).images[0, :, 0, 0, 0].tolist()

    assert find((), {}) == [10, 20, 30]
    assert find(("cam1", "cam2"), {}) == [10, 20]
    assert find(("cam1", "cam2"), {"cam1": "front"}) == [30, 20]
    assert find(("cam1", "cam2", "cam3"), {"cam2": "front"}) == [10, 30, 20]
    for cameras in ({"cam1": "side"}, {"cam9": "front"}, {"cam1": "front", "cam2": "front"}):
        with pytest.raises(ConfigError, match=r"--camera"):
            find(("cam1", "cam2"), cameras)
    with pytest.raises(ConfigError, match=r"--devices 3 or fewer"):
        find(("cam1", "cam2", "cam3", "cam4"), {})


def test_samples_whose_labels_nobody_reads_need_no_classes(tmp_path: Path) -> None:
    for camera in ("cam1", "cam2"):
        write(tmp_path, camera, "unsorted", [f"{i}.png" for i in range(5)])
    with pytest.raises(ConfigError, match="expected at least two"):
        load_samples(f"directory:{tmp_path}")
    found = load_samples(f"directory:{tmp_path}", folders=FolderRequest(labelled=False))
    assert len(found) == 5
