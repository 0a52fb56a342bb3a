"""Replays of several cameras show one instant at each tick, whenever each of them starts."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddnn.core.site_time import SiteTime, find_tick
from ddnn.errors import ConfigError
from ddnn.protocol.machine import Captured
from device_app.capture import Capture, Samples, make_counts, make_stored_work
from device_app.sources import FrameSource, UnreadableFrameError, open_source
from device_app.ticks import StoredFrames
from tests.integration.video_file import need_opencv, write_video

SHAPE = (32, 32, 3)
COUNT = 20
EPOCH_S = 1_760_000_000.0


def write_levels(path: Path) -> str:
    """Write pictures whose grey level is ten times their number, named without leading zeros."""
    path.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (48, 48), (10 * number,) * 3).save(path / f"f{number}.png")
    return f"directory:{path}"


def write_levels_as_video(file: Path) -> str:
    need_opencv()
    frames = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(COUNT)]
    return f"video:{write_video(file, frames)}"


def read_number(source: FrameSource, tick: int) -> int:
    return round(float(source.read_frame(tick).image.mean()) / 10)


def replay(source: FrameSource, start_s: float) -> dict[int, int]:
    """Replay until 4 s of virtual time; returns the number of the frame by tick."""
    now_s = start_s
    frames = StoredFrames(source, 0.1, lambda: SiteTime(0, EPOCH_S + now_s), lambda: now_s)
    taken: dict[int, int] = {}
    while (now_s := now_s + 0.1) < 4.0:
        frame = frames.take()
        taken[find_tick(frame.sample)] = round(float(frame.image["image"].mean()) / 10)
    return taken


@pytest.mark.parametrize("kind", ["directory", "video"])
def test_cameras_that_start_at_different_times_show_the_same_frame(
    kind: str, tmp_path: Path
) -> None:
    uris = [
        write_levels(tmp_path / name)
        if kind == "directory"
        else write_levels_as_video(tmp_path / f"{name}.avi")
        for name in ("cam1", "cam2")
    ]
    shown: list[dict[int, int]] = []
    for uri, late_s in zip(uris, (0.0, 1.25), strict=True):
        shown.append(replay(open_source(uri, 0, SHAPE), late_s))
    common = shown[0].keys() & shown[1].keys()
    assert len(common) > COUNT
    assert all(shown[0][tick] == shown[1][tick] == tick % COUNT for tick in common)


def test_any_frame_of_a_video_can_be_read(tmp_path: Path) -> None:
    source = open_source(write_levels_as_video(tmp_path / "v.avi"), 0, SHAPE)
    for tick in (7, 8, 3, 3, 19, 20, 18, 1_000_013):
        assert read_number(source, tick) == tick % COUNT


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    need_opencv()
    (tmp_path / "v.avi").write_bytes(b"garbage")
    for name, words in (("v.avi", "no frame can be decoded"), ("none.avi", "no such file")):
        with pytest.raises(ConfigError, match=words):
            open_source(f"video:{tmp_path / name}", 0, SHAPE)


class Stop:
    """A sink that ends the capture after some samples."""

    def __init__(self, count: int) -> None:
        self.frames: list[Captured] = []
        self.full, self._count = threading.Event(), count

    def take_frame(self, frame: Captured) -> None:
        self.frames.append(frame)
        if len(self.frames) >= self._count:
            self.full.set()

    def attach(self, frames: object) -> None:
        raise AssertionError("directories are not preloaded")


def test_a_file_that_cannot_be_read_is_passed_over_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All others are shown, the source stays open, and the log names the file once."""
    uri = write_levels(tmp_path / "cam1")
    (tmp_path / "cam1" / "f3.png").write_bytes(b"")
    with pytest.raises(UnreadableFrameError):
        open_source(uri, 0, SHAPE).read_frame(3)
    now_s = [0.0]

    def advance() -> SiteTime:
        now_s[0] += 0.0005
        return SiteTime(0, EPOCH_S + now_s[0])

    sink, counts = Stop(3 * COUNT), make_counts()
    samples = Samples(sink, 0.001, advance, counts)
    capture = Capture(
        uri,
        make_stored_work(lambda: open_source(uri, 0, SHAPE), samples),
        counts,
        monotonic=lambda: now_s[0],
    )
    capture.start()
    try:
        assert sink.full.wait(60)
    finally:
        capture.close()
    shown = {round(float(frame.image["image"].mean()) / 10) for frame in sink.frames}
    assert shown == set(range(COUNT)) - {3}
    assert all(find_tick(frame.sample) % COUNT != 3 for frame in sink.frames)
    assert counts["frames_unreadable"] >= 2
    assert counts["camera_failures"] == 0
    assert caplog.text.count("no view of this camera") == 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_stream_without_an_index_is_played_again_and_again(tmp_path: Path, count: int) -> None:
    """Raw MJPEG says nowhere how many frames it has."""
    cv2 = need_opencv()
    levels = [40 * (number + 1) for number in range(count)]
    frames = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    file = tmp_path / "raw.mjpeg"
    file.write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames))
    source = open_source(f"video:{file}", 0, (32, 32, 3))
    for tick in (0, 1, 2, 5, 0, 4):
        expected = levels[tick % count]
        assert abs(float(source.read_frame(tick).image.mean()) - expected) < 3
