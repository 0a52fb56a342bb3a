"""Frame sources give the frame of a tick, and one clear error for broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddnn.data
from ddnn.core.text import mask_passwords
from ddnn.data import load_samples
from ddnn.errors import ConfigError
from ddnn.runtime.frame_order import FrameOrder, write_order
from device_app.settings import DeviceSettings
from device_app.sources import (
    UnreadableFrameError,
    open_source,
    parse_uri,
    read_first_frame,
    require_libraries,
)

SHAPE = (32, 32, 3)


def write_frames(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    path.mkdir(exist_ok=True)
    np.save(path / "images.npy", images)
    np.save(path / "view_labels.npy", labels)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A directory of three pictures: red, green, blue."""
    for number in range(3):
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[..., number] = 200
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_tick_selects_the_frame_with_its_number(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 2, *SHAPE), np.uint8)
    labels = np.arange(10, dtype=np.int32).reshape(5, 2) - 1
    source = open_source(f"frames:{write_frames(tmp_path / 'f', images, labels)}", 1, SHAPE)
    for tick in (0, 4, 5, 17_000_000_003):
        frame = source.read_frame(tick)
        np.testing.assert_array_equal(frame.image, images[tick % 5, 1])
        assert frame.label == labels[tick % 5, 1]
        assert type(frame.label) is int


def test_frames_come_in_the_order_of_their_directory(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 2, *SHAPE), np.uint8)
    path = write_frames(tmp_path / "f", images, np.arange(10, dtype=np.int32).reshape(5, 2))
    sources = [open_source(f"frames:{path}", view, SHAPE) for view in range(2)]
    write_order(path, 100, seed=1)
    order = FrameOrder(path, 5)
    assert {order.find_frame(tick) for tick in range(100, 105)} == set(range(5))
    for tick in range(100, 110):
        for view, source in enumerate(sources):
            np.testing.assert_array_equal(
                source.read_frame(tick).image, images[order.find_frame(tick), view]
            )


def test_a_data_set_gives_every_camera_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    split = load_samples("scenes", samples=10)  # of a thousand
    monkeypatch.setattr(ddnn.data, "load_samples", lambda spec, folders: {"scenes": split}[spec])
    source = open_source("dataset:scenes", 2, SHAPE)
    np.testing.assert_array_equal(source.read_frame(1003).image, split.images[3, 2])
    assert source.read_frame(1003).label == split.view_labels[3, 2]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((0, 2, *SHAPE), np.uint8), np.zeros((0, 2), np.int32)),
        (np.zeros((3, 1, *SHAPE), np.uint8), np.zeros((3, 1), np.int32)),
        (np.zeros((3, 2, 8, 8, 3), np.uint8), np.zeros((3, 2), np.int32)),
        (np.zeros((3, 2, *SHAPE), np.float32), np.zeros((3, 2), np.int32)),
        (np.zeros((3, 2, *SHAPE), np.uint8), np.zeros((2, 2), np.int32)),
        (np.zeros((3, 2, *SHAPE), np.uint8), np.zeros((3, 2), np.float32)),
        (np.zeros(7, np.uint8), np.zeros((3, 2), np.int32)),
    ],
)
def test_frames_of_another_shape_are_refused(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(ConfigError):
        open_source(f"frames:{write_frames(tmp_path / 'f', images, labels)}", 1, SHAPE)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_frames_that_are_broken_are_refused(tmp_path: Path, data: bytes) -> None:
    path = write_frames(tmp_path / "f", np.zeros((3, 2, *SHAPE), np.uint8), np.zeros((3, 2), int))
    (path / "images.npy").write_bytes(data)
    with pytest.raises(ConfigError, match="frames"):
        open_source(f"frames:{path}", 1, SHAPE)
    with pytest.raises(ConfigError, match="No such file"):
        open_source(f"frames:{tmp_path / 'none'}", 1, SHAPE)


def test_a_directory_is_read_in_order_and_repeated(pictures: Path) -> None:
    source = open_source(f"directory:{pictures}", 0, SHAPE)
    colours = [source.read_frame(tick).image.reshape(-1, 3).mean(0).argmax() for tick in range(7)]
    assert colours == [0, 1, 2, 0, 1, 2, 0]
    frame = source.read_frame(9)
    assert frame.image.shape == SHAPE
    assert frame.image.dtype == np.uint8
    assert frame.label is None


def test_a_directory_without_pictures_is_refused(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "no image in it.*png"),
        (tmp_path / "none", "no such directory"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_source(f"directory:{path}", 0, SHAPE)


def test_a_broken_picture_keeps_its_place(pictures: Path) -> None:
    """The cameras of a site stay aligned: the tick of the broken file alone has no frame."""
    whole = (pictures / "1.png").read_bytes()
    for data in (b"", b"garbage", whole[: len(whole) // 2], whole[:40] + b"x" * 100):
        (pictures / "1.png").write_bytes(data)
        source = open_source(f"directory:{pictures}", 0, SHAPE)
        for tick in range(6):
            if tick % 3 == 1:
                with pytest.raises(UnreadableFrameError, match=r"1\.png.*not a readable image"):
                    source.read_frame(tick)
            else:
                colour = source.read_frame(tick).image.reshape(-1, 3).mean(0).argmax()
                assert colour == tick % 3
        assert read_first_frame(source).image.shape == SHAPE


def test_a_directory_of_broken_pictures_is_refused(pictures: Path) -> None:
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(b"garbage")
    with pytest.raises(ConfigError, match="no readable image"):
        read_first_frame(open_source(f"directory:{pictures}", 0, SHAPE))


def test_a_directory_is_sorted_as_training_sorts(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        Image.new("RGB", (48, 48), (10 * number,) * 3).save(tmp_path / f"f{number}.png")
    (tmp_path / "._f1.png").write_bytes(b"of macOS")
    source = open_source(f"directory:{tmp_path}", 0, SHAPE)
    levels = [int(source.read_frame(tick).image.mean()) for tick in (300, 301, 302, 303)]
    assert levels == [10, 20, 100, 10]


# ------------------------------------------------------------------------ URIs


@pytest.mark.parametrize(
    ("uri", "kind", "path"),
    [
        ("picamera://0", "picamera", "0"),
        ("v4l2:///dev/video0", "v4l2", "/dev/video0"),
        ("v4l2:/dev/v4l/by-id/usb-x", "v4l2", "/dev/v4l/by-id/usb-x"),
        ("rtsp://cam.lan/live", "rtsp", "rtsp://cam.lan/live"),
        ("RTSPS://[fe80::1]:322/live?a=b", "rtsps", "RTSPS://[fe80::1]:322/live?a=b"),
        ("video:a b.mp4", "video", "a b.mp4"),
        ("directory:/x", "directory", "/x"),
        ("dataset:eth80:/x.npz", "dataset", "eth80:/x.npz"),
        ("frames:/x", "frames", "/x"),
    ],
)
def test_a_uri_is_parsed(uri: str, kind: str, path: str) -> None:
    parsed = parse_uri(uri)
    assert (parsed.kind, parsed.path) == (kind, path)
    assert parsed.live == (kind in ("picamera", "v4l2", "rtsp", "rtsps"))
    assert not parsed.secret or "?" in uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "webcam",
        "video:",
        "http://x/y",
        "picamera://",
        "picamera://x",
        "picamera:0",
        "picamera://0/..",
        "v4l2://video0",
        "v4l2:0",
        "rtsp:",
        "rtsp://",
        "rtsp:///live",
        "rtsp://user:hush@/live",
        "rtsp://user:hush@host:0/",
        "rtsp://user:hush@host:99999/",
        "rtsp://user:hush@[host/",
        "rtsp://user:hush@host/a b",
        "rtsp://user:hush@host/\n",
        "rtps://user:hush@host/live",
        "http://user:hush@host/live",
    ],
)
def test_an_invalid_uri_is_refused_without_showing_its_password(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"--source .*expected") as refused:
        parse_uri(uri)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("rtsp://me:hush@cam/live", "rtsp://me:***@cam/live"),
        ("rtsp://me:hu@s/h@cam:1/live", "rtsp://me:***@cam:1/live"),
        ("rtsp://hush@cam/live", "rtsp://***@cam/live"),
        ("RTSPS://me:@cam/live", "RTSPS://me:***@cam/live"),
        ("rtsp://cam/live?user=me&password=hush", "rtsp://cam/live?***"),
        ("rtsp://cam/user=me_password=hush_channel=1", "rtsp://cam/user=me_password=***"),
        ("rtsp://cam/?hush", "rtsp://cam/?***"),
        ("video:a@b:c", "video:a@b:c"),
    ],
)
def test_passwords_are_masked(uri: str, shown: str) -> None:
    assert mask_passwords(uri) == shown
    assert parse_uri(uri).shown == shown
    assert parse_uri(uri).secret == (shown != uri)


def make_settings(**keys: object) -> DeviceSettings:
    return DeviceSettings(node="cam1", bundle="b", **keys)  # type: ignore[arg-type]


def test_the_source_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "camera.uri"
    file.write_text("rtsp://me:hush@cam/live\n")
    from_file = make_settings(source_file=str(file))
    assert from_file.uri == "rtsp://me:hush@cam/live"
    given = make_settings(source="rtsp://me:hush@cam/live")
    assert "hush" not in repr(given) + str(given)
    for keys in ({}, {"source": "video:x", "source_file": str(file)}):
        with pytest.raises(ConfigError, match="either --source or --source-file"):
            make_settings(**keys)
    file.write_text("hush\n")
    with pytest.raises(ConfigError, match=r"--source-file .* is no source") as refused:
        _ = make_settings(source_file=str(file)).uri
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("key", [{"roi": "0,0,1,1"}, {"motion": 0.1}])
def test_region_and_motion_are_refused_for_prepared_images(
    key: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="what the section sees"):
        make_settings(source="dataset:scenes", **key)
    (tmp_path / "uri").write_text("frames:/x")
    with pytest.raises(ConfigError, match="what the section sees"):
        _ = make_settings(source_file=str(tmp_path / "uri"), **key).uri


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("rtsp", r"'ddnn\[camera\]'"),
        ("directory", r"'ddnn\[camera\]'"),
        ("picamera", "apt install python3-picamera2.*--system-site-packages"),
    ],
)
def test_a_missing_library_is_reported_with_its_remedy(
    kind: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=remedy):
        require_libraries(kind)
    require_libraries("frames")
