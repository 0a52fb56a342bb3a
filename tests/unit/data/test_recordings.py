"""Recorded pictures on disk: the layout, dataset.json, near-duplicates, and honest splits."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi
from ddnn.data import FolderRequest, Split, describe_dataset
from ddnn.data.folders import load_directory, load_directory_samples
from ddnn.data.recordings import (
    DESCRIPTION,
    UNLABELLED,
    Camera,
    Description,
    RecordingStore,
    find_burst,
    find_duplicates,
    find_session,
    measure_quality,
    read_description,
    require_label,
    write_description,
)
from ddnn.data.recordings import store as store_module
from ddnn.data.splits import split_by_burst, split_by_class
from ddnn.errors import ConfigError
from ddnn.local_site.train import choose_preprocessing
from ddnn.machines.picture_collector import Picture
from ddnn.protocol.record_messages import RecordState

SESSION = "20260102-030405-ab12"


def make_jpeg(seed: int, *, light: int = 128, width: int = 96, height: int = 64) -> bytes:
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(-100, 100, (6, 8, 3))
    picture = np.clip(coarse + light, 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(picture).resize((width, height), 0).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def record(
    path: Path, plan: dict[str, list[int]], session: str = SESSION, bits: int = -1
) -> RecordingStore:
    """Record one burst for each label, of two cameras, with pictures of these seeds."""
    store = RecordingStore(path, session, "home", "0.1")
    sample = 1000
    for burst, (label, seeds) in enumerate(plan.items(), 1):
        store.begin_burst(burst, label, (1.0, 9.0), 0.5)
        for seed in seeds:
            for camera in ("cam1", "cam2"):
                jpeg = make_jpeg(2 * seed + (camera == "cam2"))
                store.keep(Picture(camera, session, burst, sample, jpeg))
            sample += 1
    states = {"cam1": RecordState(session, "done", bundle="b1")}
    store.finish(states, bits)
    return store


def test_what_is_kept_is_the_layout_of_folders_and_described(tmp_path: Path) -> None:
    record(tmp_path, {"person": [1, 2, 3], "nobody": [4, 5, 6]})
    record(tmp_path, {"person": [7]}, "20260103-030405-cd34")
    file = tmp_path / "cam2" / "person" / f"{SESSION}-1-1001.jpg"
    assert file.read_bytes() == make_jpeg(2 * 2 + 1)
    found = read_description(tmp_path)
    assert found.classes == ["person", "nobody"]
    assert [session.id for session in found.sessions] == [SESSION, "20260103-030405-cd34"]
    assert [(b.label, b.pictures) for b in found.sessions[0].bursts] == [
        ("person", {"cam1": 3, "cam2": 3}),
        ("nobody", {"cam1": 3, "cam2": 3}),
    ]
    assert (found.cameras["cam1"].bundle, found.cameras["cam1"].width) == ("b1", 96)
    loaded = load_directory_samples(tmp_path, FolderRequest())
    assert loaded.classes == ("nobody", "person")
    assert len(loaded.samples) == 7
    assert len(set(loaded.bursts)) == 3
    assert not any("dataset.json" in note for note in loaded.notes)


def test_names_say_burst_and_session() -> None:
    name = f"{SESSION}-2-6800000012"
    assert find_burst(name) == f"{SESSION}-2"
    assert find_session(name) == SESSION


def test_unlabelled_pictures_wait_for_a_label(tmp_path: Path) -> None:
    record(tmp_path, {"person": [1, 2], "nobody": [3, 4], UNLABELLED: [5]})
    loaded = load_directory_samples(tmp_path, FolderRequest())
    assert loaded.classes == ("nobody", "person")
    assert any("2 passed over (not labelled" in note for note in loaded.notes)


@pytest.mark.parametrize("label", ["", ".hidden", "a/b", "-x", "x" * 65, "a\nb"])
def test_a_label_must_be_the_name_of_a_folder(label: str) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 64"):
        require_label(label)


# ------------------------------------------------------------------ what goes wrong


def test_a_directory_of_other_files_is_not_recorded_into(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(ConfigError, match=r"no dataset\.json"):
        RecordingStore(tmp_path, SESSION, "home", "0.1")


def test_another_site_is_not_mixed_in(tmp_path: Path) -> None:
    record(tmp_path, {"person": [1]})
    with pytest.raises(ConfigError, match="site home"):
        RecordingStore(tmp_path, "other", "office", "0.1")


def test_after_a_kill_there_is_nothing_but_whole_pictures(tmp_path: Path) -> None:
    store = record(tmp_path, {"person": [1, 2]})
    left = tmp_path / "cam1" / "person" / ".x.jpg.part"
    left.write_bytes(make_jpeg(1)[:100])  # by a process that was killed while it wrote
    assert sum(store.count_classes()["person"].values()) == 4
    (tmp_path / "cam9" / "person").mkdir(parents=True)  # before it could describe the camera
    again = RecordingStore(tmp_path, "next", "home", "0.1")
    assert not left.exists()
    assert sorted(again.description.cameras) == ["cam1", "cam2", "cam9"]


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_full_disk_leaves_no_part_of_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store = RecordingStore(tmp_path, SESSION, "home", "0.1")
    store.begin_burst(1, "person", (0.0, 9.0), 0.5)
    picture = Picture("cam1", SESSION, 1, 1000, make_jpeg(1))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if moment == "before":
        monkeypatch.setattr(store_module, "RESERVE_BYTES", 1 << 60)
    else:
        monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"free|No space"):
        store.keep(picture)
    monkeypatch.undo()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / DESCRIPTION]
    store.keep(picture)  # repeated by the device once there is room
    assert store.count_pictures(1) == {"cam1": 1}


def test_a_broken_picture_is_not_kept(tmp_path: Path) -> None:
    store = RecordingStore(tmp_path, SESSION, "home", "0.1")
    store.begin_burst(1, "person", (0.0, 9.0), 0.5)
    assert store.keep(Picture("cam1", SESSION, 1, 1000, make_jpeg(1)[:400])) is None
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_broken_description_is_named(tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(ConfigError, match=r"dataset\.json"):
        read_description(tmp_path)
    (tmp_path / DESCRIPTION).write_bytes(msgspec.json.encode({"format": 9}))
    with pytest.raises(ConfigError, match="mend it"):
        read_description(tmp_path)


# -------------------------------------------------------------------- near-duplicates


def test_a_sample_is_a_duplicate_where_no_camera_sees_a_change() -> None:
    samples = {
        "a": {"cam1": 0b0000, "cam2": 0b0000},
        "b": {"cam1": 0b0001, "cam2": 0b0000},  # one bit
        "c": {"cam1": 0b0011, "cam2": 0b0000},  # two bits from a, which is compared with
        "d": {"cam1": 0b0011},  # a view is absent
        "e": {"cam1": 0b0011},
    }
    assert find_duplicates(samples, 0) == ["e"]
    assert find_duplicates(samples, 1) == ["b", "e"]
    assert find_duplicates(samples, 2) == ["b", "c", "e"]


def test_pictures_of_a_scene_that_stands_still_are_thinned(tmp_path: Path) -> None:
    record(tmp_path, {"person": [1, 1, 1, 2, 2, 1]}, bits=2)
    assert len(list((tmp_path / "cam1" / "person").iterdir())) == 3
    burst = read_description(tmp_path).sessions[0].bursts[0]
    assert (burst.thinned, burst.pictures) == (3, {"cam1": 3, "cam2": 3})


def test_dark_and_blurred_pictures_are_noticed() -> None:
    assert measure_quality(make_jpeg(1)).complaints == []
    assert measure_quality(make_jpeg(1, light=-60)).complaints[0] == "dark"
    assert "overexposed" in measure_quality(make_jpeg(1, light=330)).complaints
    from PIL import Image, ImageFilter

    buffer = BytesIO()
    with Image.open(BytesIO(make_jpeg(1))) as sharp:
        sharp.filter(ImageFilter.GaussianBlur(8)).save(buffer, "JPEG")
    assert measure_quality(buffer.getvalue()).complaints == ["blurred"]


# --------------------------------------------------------------------------- splits


def record_days(path: Path, days: int, bursts: int, samples: int = 10) -> None:
    """Each burst has its own background, of which each picture shows a little else."""
    for day in range(days):
        store = RecordingStore(path, f"2026010{day}-000000-ab12", "home", "0.1")
        number = 0
        for repeat in range(bursts):
            for label in ("nobody", "person"):
                number += 1
                store.begin_burst(number, label, (0.0, 9.0), 0.5)
                background = 100 * day + 10 * repeat + (label == "person")
                for sample in range(samples):
                    jpeg = make_scene(background, sample, person=label == "person")
                    picture = Picture("cam1", store._session.id, number, sample, jpeg)
                    store.keep(picture)
        store.finish({}, -1)


def make_scene(background: int, sample: int, *, person: bool) -> bytes:
    """A background that a burst has to itself; a person is a faint square in it."""
    from PIL import Image

    generator = np.random.default_rng(background)
    picture = generator.integers(30, 220, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
    noise = np.random.default_rng(1000 * background + sample)
    left, top = noise.integers(0, 48, 2)
    if person:
        picture[top : top + 16, left : left + 16] += 12
    picture = picture + noise.integers(-6, 6, picture.shape)
    buffer = BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def name_nearest(train, test) -> float:
    """The accuracy of the nearest neighbour, which remembers pictures and understands nothing."""
    known = train.images.reshape(len(train), -1).astype(np.float32)
    asked = test.images.reshape(len(test), -1).astype(np.float32)
    distances = ((asked[:, None] - known[None]) ** 2).sum(2)
    return float((train.labels[distances.argmin(1)] == test.labels).mean())


def test_a_random_split_leaks_and_that_by_burst_does_not(tmp_path: Path) -> None:
    """What only remembers backgrounds looks perfect where neighbours are on both sides."""
    record_days(tmp_path, days=1, bursts=8)
    loaded = load_directory_samples(tmp_path, FolderRequest())
    by_burst, at_random = [], []
    for seed in range(8):
        given = loaded.classes, loaded.samples
        honest, notes = split_by_burst("x", *given, loaded.bursts, seed, tmp_path)
        assert notes == ()
        parts = (honest.train, honest.validation, honest.test)
        assert [len(part) for part in parts] == [120, 20, 20]
        bursts = [set(part.groups.tolist()) for part in parts]
        assert sum(map(len, bursts)) == len(set.union(*bursts)) == 16
        by_burst.append(name_nearest(honest.train, honest.test))
        random = split_by_class("x", *given, seed, tmp_path)
        at_random.append(name_nearest(random.train, random.test))
    assert at_random == [1.0] * 8
    assert np.mean(by_burst) < 0.75


def test_splits_are_by_session_where_there_are_three(tmp_path: Path) -> None:
    record_days(tmp_path, days=3, bursts=2, samples=3)
    dataset = load_directory(tmp_path, FolderRequest())
    names = load_directory_samples(tmp_path, FolderRequest()).bursts
    days = {number: find_burst(name) for number, name in enumerate(sorted(set(names)))}
    found = [
        {days[group] for group in part.groups.tolist()}
        for part in (dataset.train, dataset.validation, dataset.test)
    ]
    assert [len(part) for part in found] == [1, 1, 1]
    assert len(set.union(*found)) == 3


def test_a_single_burst_is_cut_in_time_and_the_user_is_told(tmp_path: Path) -> None:
    record(tmp_path, {"nobody": list(range(20)), "person": list(range(20, 40))})
    dataset = load_directory(tmp_path, FolderRequest())
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [24, 6, 6]
    lines = describe_dataset(dataset)
    assert sum("1 burst(s)" in line for line in lines) == 2


# ------------------------------------------------------------------ preprocessing


def describe_cameras(path: Path, **fits: str) -> None:
    cameras = {
        name: Camera(
            node=name,
            bundle="b1",
            preprocessing=Preprocessing(fit=fit),  # type: ignore[arg-type]
            roi=Roi(0.25, 0, 0.5, 1) if name == "cam2" else WHOLE,
        )
        for name, fit in fits.items()
    }
    write_description(path, Description(cameras=cameras))


def test_training_sees_what_the_devices_saw_that_recorded(tmp_path: Path) -> None:
    devices = ("cam1", "cam2")
    assert choose_preprocessing(tmp_path, None, {}, devices, {}) == Preprocessing(fit="stretch")
    describe_cameras(tmp_path, cam1="crop", cam2="crop")
    found = choose_preprocessing(tmp_path, None, {}, devices, {})
    assert found == Preprocessing(fit="crop", rois={"cam2": Roi(0.25, 0, 0.5, 1)})
    other = {"cam1": Roi(0, 0, 1, 0.5)}
    assert choose_preprocessing(tmp_path, "stretch", other, devices, {}) == Preprocessing(
        fit="stretch", rois=other
    )
    swapped = choose_preprocessing(tmp_path, None, {}, devices, {"cam1": "cam2", "cam2": "cam1"})
    assert list(swapped.rois) == ["cam1"]


def test_recordings_of_different_kinds_are_no_data_set(tmp_path: Path) -> None:
    describe_cameras(tmp_path, cam1="crop", cam2="stretch")
    with pytest.raises(ConfigError, match=r"different --fit \(crop, stretch\); give --fit"):
        choose_preprocessing(tmp_path, None, {}, ("cam1", "cam2"), {})
    assert choose_preprocessing(tmp_path, "crop", {}, ("cam1", "cam2"), {}).fit == "crop"
    assert choose_preprocessing(tmp_path, None, {}, ("cam2",), {}).fit == "stretch"


def test_a_session_of_several_classes_is_in_one_split(tmp_path: Path) -> None:
    """Its pictures were labelled afterwards, so that neighbours have different classes."""
    rng = np.random.default_rng(0)
    for trial in range(20):
        sessions = [f"2026010{day}-000000-ab12-1" for day in range(int(rng.integers(3, 9)))]
        bursts = [name for name in sessions for _ in range(int(rng.integers(20, 80)))]
        labels = rng.integers(0, 3, len(bursts)).astype(np.int32)
        groups = np.unique(bursts, return_inverse=True)[1].astype(np.int32)
        images = np.ones((len(bursts), 1, 1, 1, 3), np.uint8)
        samples = Split("samples", images, labels, labels[:, None], groups)
        dataset, notes = split_by_burst("x", ("a", "b", "c"), samples, bursts, trial, tmp_path)
        found = [set(s.groups.tolist()) for s in (dataset.train, dataset.validation, dataset.test)]
        assert sum(map(len, found)) == len(sessions)
        assert all({*part.labels.tolist()} == {0, 1, 2} for part in (dataset.test, dataset.train))
        assert notes == ()
