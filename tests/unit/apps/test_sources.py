"""Frame sources: the right frame at the right tick, and one clear error for what is broken."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ddnn.data
from ddnn.data import load_samples
from ddnn.errors import ConfigError
from device_app import app
from device_app.sources import Frame, open_source, scaled

SHAPE = (32, 32, 3)


def frames_at(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    path.mkdir(exist_ok=True)
    np.save(path / "images.npy", images)
    np.save(path / "view_labels.npy", labels)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three of one colour each: red, green, blue."""
    for number in range(3):
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[..., number] = 200
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_frames_are_the_samples_by_tick(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 2, *SHAPE), np.uint8)
    labels = np.arange(10, dtype=np.int32).reshape(5, 2) - 1
    source = open_source(f"frames:{frames_at(tmp_path / 'f', images, labels)}", 1, SHAPE)
    for tick in (0, 4, 5, 17_000_000_003):
        frame = source.frame(tick)
        np.testing.assert_array_equal(frame.image, images[tick % 5, 1])
        assert frame.label == labels[tick % 5, 1]
        assert type(frame.label) is int


def test_a_data_set_is_the_same_samples_for_every_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    split = load_samples("scenes", samples=10)  # of a thousand
    monkeypatch.setattr(ddnn.data, "load_samples", lambda spec: {"scenes": split}[spec])
    source = open_source("dataset:scenes", 2, SHAPE)
    np.testing.assert_array_equal(source.frame(1003).image, split.images[3, 2])
    assert source.frame(1003).label == split.view_labels[3, 2]


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
)  # fmt: skip
def test_frames_that_do_not_fit_are_refused(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray
) -> None:
    with pytest.raises(ConfigError):
        open_source(f"frames:{frames_at(tmp_path / 'f', images, labels)}", 1, SHAPE)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_frames_that_are_broken_are_refused(tmp_path: Path, data: bytes) -> None:
    path = frames_at(tmp_path / "f", np.zeros((3, 2, *SHAPE), np.uint8), np.zeros((3, 2), int))
    (path / "images.npy").write_bytes(data)
    with pytest.raises(ConfigError, match="frames"):
        open_source(f"frames:{path}", 1, SHAPE)
    with pytest.raises(ConfigError, match="No such file"):
        open_source(f"frames:{tmp_path / 'none'}", 1, SHAPE)


def test_a_directory_is_shown_in_order_over_and_over(pictures: Path) -> None:
    source = open_source(f"directory:{pictures}", 0, SHAPE)
    colours = [source.frame(tick).image.reshape(-1, 3).mean(0).argmax() for tick in range(7)]
    assert colours == [0, 1, 2, 0, 1, 2, 0]
    frame = source.frame(9)
    assert frame.image.shape == SHAPE
    assert frame.image.dtype == np.uint8
    assert frame.label is None


def test_a_directory_that_has_no_pictures(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "no .bmp"), (tmp_path / "none", "no such directory")):
        with pytest.raises(ConfigError, match=words):
            open_source(f"directory:{path}", 0, SHAPE)


def test_a_picture_that_is_none(pictures: Path) -> None:
    whole = (pictures / "0.png").read_bytes()
    for data in (b"", b"garbage", whole[: len(whole) // 2], whole[:40] + b"x" * 100):
        (pictures / "0.png").write_bytes(data)
        source = open_source(f"directory:{pictures}", 0, SHAPE)
        with pytest.raises(ConfigError, match="not a readable image"):
            source.frame(0)


def test_scaling_takes_the_middle_and_averages() -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 32:96] = (np.indices((64, 64)).sum(0) % 2 * 200)[..., None]  # a fine chess board
    assert (scaled(image, SHAPE) == 100).all()
    same = np.ones(SHAPE, np.uint8)
    assert scaled(same, SHAPE) is same
    assert scaled(np.ones((7, 5, 3), np.uint8), SHAPE).shape == SHAPE


# ------------------------------------------------------------------- capturing


class Failing:
    """Gives two frames, then fails."""

    at_hand = False

    def __init__(self, error: Exception) -> None:
        self.error, self.left = error, 2

    def frame(self, tick: int) -> Frame:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return Frame(np.zeros(SHAPE, np.uint8), None)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "REOPEN_S", (0.001, 0.002))


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    "error",
    [ConfigError("x"), OSError("x"), ValueError("x"), StopIteration(), ImportError("x"),
     Image.DecompressionBombError("x"), SyntaxError("broken PNG file")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_source_that_fails_is_opened_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = 0

    def opens(uri: str, view: int, shape: tuple[int, int, int]) -> Failing:
        nonlocal opened
        opened += 1
        if opened % 2:
            raise error
        if opened > 6:
            raise SystemExit  # ends the thread: the test has seen enough
        return Failing(error)

    monkeypatch.setattr(app, "open_source", opens)
    captured: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop: Any = SimpleNamespace(captured=captured.put)
    with caplog.at_level(logging.ERROR):

        def capture() -> None:
            with contextlib.suppress(SystemExit):
                app._capture(loop, "video:x", 0, SHAPE, 0.002)

        thread = threading.Thread(target=capture, daemon=True)
        thread.start()
        thread.join(10)
    assert not thread.is_alive()
    samples = [captured.get().sample for _ in range(captured.qsize())]
    assert len(samples) == 6
    assert samples == sorted(set(samples))  # no tick twice
    assert caplog.text.count("trying again") == 7  # never silently
