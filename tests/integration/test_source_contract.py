"""One contract for every kind of source: samples of the section's shape, one a tick."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ddnn.data.scenes import list_classes
from ddnn.runtime.bundle import load_bundle
from device_app.app import open_capture
from device_app.capture import make_counts
from device_app.settings import DeviceSettings
from device_app.target import find_target
from device_app.ticks import read_own_clock
from tests.integration.rtsp_camera import LATE_S, RtspCamera
from tests.integration.sample_taker import BUSY_S, SampleTaker
from tests.integration.test_device import write_pictures
from tests.integration.video_file import write_video
from tests.unit.apps.picamera2_stand_in import install

pytestmark = pytest.mark.timed

SHAPE = (32, 32, 3)


def prepare(kind: str, directory: Path, request: pytest.FixtureRequest) -> str:
    """A source of this kind; its URI."""
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (5, 6, *SHAPE), np.uint8)
    pictures = dice.integers(0, 256, (5, 48, 64, 3), np.uint8)
    match kind:
        case "dataset":
            np.savez(
                directory / "own.npz",
                images=images,
                labels=np.arange(5) % 3,
                classes=list_classes("scenes"),
            )
            return f"dataset:npz:{directory / 'own.npz'}"
        case "frames":
            np.save(directory / "images.npy", images)
            np.save(directory / "view_labels.npy", np.zeros((5, 6), np.int32))
            return f"frames:{directory}"
        case "directory":
            write_pictures(directory / "pictures", pictures)
            return f"directory:{directory / 'pictures'}"
        case "video":
            return f"video:{write_video(directory / 'v.avi', list(pictures.repeat(3, 0)))}"
        case "rtsp":
            rtsp: RtspCamera = request.getfixturevalue("rtsp")
            rtsp.start()
            return rtsp.uri()
    assert kind == "picamera"
    install(request.getfixturevalue("monkeypatch"))
    return "picamera://0"


@pytest.mark.timeout(90)
@pytest.mark.parametrize("kind", ["dataset", "frames", "directory", "video", "rtsp", "picamera"])
def test_every_source_gives_samples_that_a_section_takes(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, scenes_bundle: Path
) -> None:
    """One sample a tick, of the section's shape; the newest frame wins; nothing goes on after it
    is closed.

    V4L2 alone is missing: it needs a camera or a module of the kernel. It shares all but the
    opening with RTSP.
    """
    uri = prepare(kind, tmp_path, request)
    settings = DeviceSettings(node="cam2", bundle="x", source=uri, rate_hz=20)
    bundle = load_bundle(scenes_bundle, lambda path: None, [])  # type: ignore[arg-type,return-value]
    assert bundle.manifest.image_shape == SHAPE
    taker = SampleTaker()
    target = find_target(settings, bundle.manifest)
    capture = open_capture(settings, target, taker, read_own_clock, make_counts())
    try:
        capture.start()
        taker.wait_for(20)
        for frame in taker.frames:
            image = frame.image["image"]
            assert image.shape == SHAPE
            assert image.dtype == np.uint8
            assert image.flags.c_contiguous
            assert abs(frame.captured_at_s - frame.sample / 20) <= 0.025 + 1e-3
        assert capture.read_gauges()["camera_up"] == 1
        assert 0 <= capture.read_gauges()["frame_age_s"] < LATE_S
        assert capture.counts["frames"] >= 20
        taker.slow.set()  # the receiver blocks for forty ticks
        behind = len(taker.frames) + 3
        taker.wait_for(behind + 5)
        ages_s = [time.time() - frame.captured_at_s for frame in taker.frames[-3:]]
        assert max(ages_s) < BUSY_S - LATE_S / 2, "frames of before have been kept"
        ticks = [frame.sample for frame in taker.frames]
        assert ticks == sorted(set(ticks))
        assert ticks[-1] - ticks[0] >= len(ticks) + 20  # what was missed is missed
    finally:
        started_s = time.monotonic()
        capture.close()
        assert time.monotonic() - started_s < 5
    count = len(taker.frames)
    taker.attached = None
    assert not {"capture", "camera"} & {thread.name for thread in threading.enumerate()}
    assert len(taker.frames) == count
