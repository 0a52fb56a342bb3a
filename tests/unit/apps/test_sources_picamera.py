"""The adapter to picamera2, with a stand-in module, as picamera2 needs a Raspberry Pi."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ddnn.errors import LinkError
from device_app.sources import open_camera, require_libraries
from device_app.sources.picamera import PiCamera, read_clocks
from tests.unit.apps.picamera2_stand_in import Picamera2, install


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def test_frames_are_rgb_and_all_buffers_are_returned() -> None:
    require_libraries("picamera", imported=True)
    camera = open_camera("picamera://0", 5.0)
    for _ in range(10):
        camera.grab()
        image = camera.read_image()
        assert image.shape == (960, 1280, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        red = image if not camera.bgr else image[..., ::-1]
        assert red[0, 0].tolist() == [200, 0, 0]
    (device,) = Picamera2.opened
    assert device.held == 0
    device.fails = True
    with pytest.raises(RuntimeError, match="buffer lost"):
        camera.grab()
    assert device.held == 0
    camera.close()
    assert device.state == "closed"


def test_a_frame_is_stamped_by_the_sensor() -> None:
    waited_s, boot_ns = 0.5, 10**15

    def clocks() -> tuple[float, int]:  # a frame takes a while to come
        frames = Picamera2.opened[0].held
        return 50.0 + frames * waited_s, boot_ns + frames * round(waited_s * 1e9)

    camera = PiCamera(0, clocks)
    (device,) = Picamera2.opened
    device.metadata = {"SensorTimestamp": boot_ns + 420_000_000}
    assert camera.grab() == pytest.approx(50.42, abs=1e-9)
    for odd in ({}, {"SensorTimestamp": 0}, {"SensorTimestamp": boot_ns + 10**12}):
        device.metadata = odd  # a stamp of another clock: its arrival counts
        assert camera.grab() == 50.0 + waited_s


def test_both_clocks_are_read_at_the_same_moment() -> None:
    """Each lies between reads before and after it, however long those take."""
    before = time.monotonic(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    now = read_clocks()
    after = time.monotonic(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before[0] <= now[0] <= after[0]
    assert before[1] <= now[1] <= after[1]


def test_a_missing_camera_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LinkError, match=r"picamera://1: 1 camera\(s\) found; is the cable in"):
        open_camera("picamera://1", 5.0)
    assert Picamera2.opened == []
    monkeypatch.setattr(Picamera2, "start_fails", True)
    with pytest.raises(RuntimeError, match="Camera in use"):
        open_camera("picamera://0", 5.0)
    assert Picamera2.opened[0].state == "closed"  # so that it can be opened again
