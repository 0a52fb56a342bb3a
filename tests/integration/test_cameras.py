"""Cameras as a device meets them: a real RTSP stream, a real video file, device nodes that are no
camera."""

from __future__ import annotations

import itertools
import queue
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddnn.errors import ConfigError, LinkError
from ddnn.protocol.messages import Scores, Stats, Status
from ddnn.runtime.bundle import load_bundle
from device_app.app import open_capture
from device_app.capture import make_counts
from device_app.settings import DeviceSettings
from device_app.sources import open_camera
from device_app.target import find_target
from device_app.ticks import read_own_clock
from tests.integration.rtsp_camera import LATE_S, PASSWORD, TURN_S, RtspCamera, StallingLink
from tests.integration.sample_taker import IN_TIME_S, SampleTaker
from tests.integration.test_device import Site, site  # noqa: F401  a fixture
from tests.integration.video_file import need_opencv, write_video

pytestmark = pytest.mark.timed

RATE_HZ = 10.0
FLAGS = ("--camera-timeout-s", "2", "--stats-every-s", "0.2")


def next_stats(site: Site, node: str, true: Callable[[Stats], bool]) -> Stats:  # noqa: F811
    until_s = time.monotonic() + IN_TIME_S
    while time.monotonic() < until_s:
        stats: Stats = site.next(Stats, node)
        if true(stats):
            return stats
    pytest.fail(f"not in time; {stats}; {site.fleet.read_last_line(node)}")


def is_up(stats: Stats) -> bool:
    return stats.gauges["camera_up"] == 1


def is_away(stats: Stats) -> bool:
    return stats.gauges["camera_up"] == 0


def read_log(site: Site, node: str) -> str:  # noqa: F811
    return (site.directory / "logs" / f"{node}.log").read_text()


# ------------------------------------------------------------------------ RTSP


@pytest.fixture
def secret(tmp_path: Path, rtsp: RtspCamera) -> Path:
    file = tmp_path / "camera.uri"
    file.write_text(rtsp.uri() + "\n")
    return file


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_network_camera_that_vanishes_is_reported_and_comes_back(
    how: str,
    site: Site,  # noqa: F811
    rtsp: RtspCamera,
    secret: Path,
) -> None:
    """Away at the start, too: the node is up meanwhile, and samples go on once it is there."""
    site.device("cam1", "", "--source-file", str(secret), *FLAGS)
    assert site.next(Status, "cam1").state == "online"
    stats = next_stats(site, "cam1", lambda stats: stats.counts["camera_failures"] >= 1)
    assert is_away(stats)
    rtsp.start()
    next_stats(site, "cam1", is_up)
    first = [site.next(Scores, "cam1") for _ in range(10)]
    ticks = [scores.sample for scores in first]
    assert ticks == sorted(set(ticks))
    for scores in first:
        assert abs(scores.captured_at_s - scores.sample / 10) <= 0.05 + 1e-3
    stats = next_stats(site, "cam1", lambda stats: stats.counts["frames_dropped"] >= 20)
    assert stats.counts["camera_reopened"] == 0
    assert stats.gauges["frame_age_s"] < 2 + LATE_S

    if how == "killed":
        rtsp.kill()
    else:
        rtsp.signal(signal.SIGSTOP)
    stats = next_stats(site, "cam1", is_away)
    assert stats.gauges["frame_age_s"] <= 2 + 5 * LATE_S  # noticed in time
    while True:  # what was on its way is through
        try:
            site.heard.get(timeout=0.01)
        except queue.Empty:
            break
    stats = next_stats(site, "cam1", lambda stats: stats.gauges["frame_age_s"] > 4)
    frames = stats.counts["frames"]
    assert next_stats(site, "cam1", is_away).counts["frames"] == frames
    if how == "killed":
        rtsp.start()
    else:
        rtsp.signal(signal.SIGCONT)
    back_s = time.time()
    stats = next_stats(site, "cam1", is_up)
    assert stats.counts["camera_reopened"] == 1
    scores = site.next(Scores, "cam1")
    assert scores.captured_at_s >= back_s - 2 * LATE_S  # none of before: those are over 4 s old
    assert scores.sample > ticks[-1]
    log = read_log(site, "cam1")
    shown = f"source rtsp://viewer:***@127.0.0.1:{rtsp.port}/cam"
    assert f"{shown} is up" in log
    assert f"{shown} is back after" in log
    assert "trying again in" in log
    assert PASSWORD not in log
    assert "hu@sh" not in log


@pytest.mark.timeout(90)
def test_a_device_ends_while_its_camera_hangs(
    site: Site,  # noqa: F811
    rtsp: RtspCamera,
    secret: Path,
) -> None:
    rtsp.start()
    flags = ("--camera-timeout-s", "60", "--stats-every-s", "0.2")
    site.device("cam1", "", "--source-file", str(secret), *flags)
    site.next(Scores, "cam1")
    rtsp.signal(signal.SIGSTOP)
    next_stats(site, "cam1", lambda stats: stats.gauges["frame_age_s"] > 1)
    process = site.fleet._running["cam1"]  # it waits in a read for up to a minute
    process.terminate()
    assert process.wait(IN_TIME_S) == 0
    assert "Fatal" not in read_log(site, "cam1")


@pytest.mark.timeout(90)
def test_every_frame_has_the_time_at_which_it_was_taken(rtsp: RtspCamera) -> None:
    """The scene is red and blue by turns, so that a frame shows when it was taken: the first ones
    after opening, and those that were kept while the stream stalled, too."""
    stall_s = 3.0
    rtsp.start()
    link = StallingLink(rtsp.port)
    camera = open_camera(f"rtsp://viewer:{PASSWORD}@127.0.0.1:{link.port}/cam", 5.0)
    ages, clear = [], 0
    for number in range(200):
        taken_s = camera.grab()
        now_s = time.monotonic()
        ages.append(now_s - taken_s)
        at_s = time.time() - ages[-1]
        if at_s % TURN_S > LATE_S:
            clear += 1
            red = camera.read_image().mean((0, 1)).argmax() == 2  # BGR
            assert red == (int(at_s / TURN_S) % 2 == 0), (number, at_s)
        if number == 40:
            link.flows.clear()
            threading.Timer(stall_s, link.flows.set).start()
    camera.close()
    link.close()
    assert clear > 50
    assert stall_s - LATE_S < max(ages) < stall_s + 2 * LATE_S
    assert sorted(ages)[100] < LATE_S  # and most are fresh
    assert ages[-1] < LATE_S


@pytest.mark.timeout(90)
def test_two_devices_show_the_same_instant(
    rtsp: RtspCamera, scenes_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scene changes from red to blue and back: at a tick both cameras show one colour."""
    rtsp.start()
    takers, captures = [SampleTaker(), SampleTaker()], []
    bundle = load_bundle(scenes_bundle, lambda path: None, [])  # type: ignore[arg-type,return-value]
    for taker in takers:
        settings = DeviceSettings(node="cam1", bundle="x", source=rtsp.uri(), rate_hz=RATE_HZ)
        target = find_target(settings, bundle.manifest)
        captures.append(open_capture(settings, target, taker, read_own_clock, make_counts()))
        captures[-1].start()
        taker.wait_for(1)
    for taker in takers:
        taker.wait_for(90)
    for capture in captures:
        capture.close()
    red = [
        {frame.sample: frame.image["image"].mean((0, 1)).argmax() == 0 for frame in taker.frames}
        for taker in takers
    ]
    # A frame that comes late on a busy machine may be of before the change.
    clear = {tick for tick in red[0].keys() & red[1].keys() if tick / RATE_HZ % TURN_S > 0.5}
    both = sorted(clear)
    assert len(both) >= 40
    assert [red[0][tick] for tick in both] == [red[1][tick] for tick in both]
    changes = sum(red[0][a] != red[0][b] for a, b in itertools.pairwise(both))
    assert changes >= 3


def test_a_wrong_password_is_reported_and_not_shown(rtsp: RtspCamera) -> None:
    rtsp.start()
    with pytest.raises(LinkError, match="user and password") as refused:
        open_camera(rtsp.uri("wrong-one"), 5.0)
    assert "wrong-one" not in str(refused.value)


# ------------------------------------------------------------------------ V4L2


@pytest.mark.parametrize(
    ("device", "error", "words"),
    [
        ("/dev/video-none", LinkError, "No such file.*plugged in"),
        ("/dev/null", LinkError, "no camera that gives pictures"),
        (__file__, ConfigError, "is no device"),
    ],
)
def test_device_nodes_without_camera_are_refused(
    device: str, error: type[Exception], words: str
) -> None:
    need_opencv()
    started_s = time.monotonic()
    with pytest.raises(error, match=words):
        open_camera(f"v4l2://{device}", 1.0)
    assert time.monotonic() - started_s < 8  # OpenCV itself would wait 10 s


def test_a_device_runs_without_its_usb_camera(site: Site) -> None:  # noqa: F811
    need_opencv()
    site.device("cam1", "v4l2:///dev/video-none", *FLAGS)
    assert site.next(Status, "cam1").state == "online"
    stats = next_stats(site, "cam1", lambda stats: stats.counts["camera_failures"] >= 2)
    assert is_away(stats)
    assert "/dev/video-none: No such file or directory; is the camera plugged in?" in read_log(
        site, "cam1"
    )


# ---------------------------------------------------------------------- motion


def test_only_frames_with_motion_are_samples(site: Site, tmp_path: Path) -> None:  # noqa: F811
    """Five seconds of a street at rest, then something crosses it; at 20 samples a second.

    The tick names the frame of the clip: it begins anywhere.
    """
    dice = np.random.default_rng(0)
    street = dice.integers(60, 180, (12, 16, 3), np.uint8).repeat(20, 0).repeat(20, 1)
    clip = [street.copy() for _ in range(120)]
    for i in range(20):
        clip[100 + i][80:160, 16 * i : 16 * i + 80] = 255
    file = write_video(tmp_path / "street.avi", clip, fps=20)
    rate_hz, hold_s = 20, 0.5
    flags = ["--rate-hz", str(rate_hz), "--motion-hold-s", str(hold_s), *FLAGS]
    site.device("cam1", f"video:{file}", "--motion", "0.02", *flags)
    ticks = [site.next(Scores, "cam1").sample for _ in range(60)]
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    held = round(hold_s * rate_hz)
    still = next(i for i, gap in enumerate(gaps) if gap > 10)
    # At rest, nothing is left behind, and the rest lasts more than ten ticks.
    if held < ticks[0] % len(clip) < 100 - held - 2 - 10:
        assert held - 4 <= ticks[still] - ticks[0] <= held + 1  # the first frame counts as motion
    rests = [(gap, ticks[i + 1] % len(clip)) for i, gap in enumerate(gaps) if gap > 10]
    assert 1 <= len(rests) <= 2
    assert all(100 <= frame <= 103 for _, frame in rests)  # something comes into the picture
    assert all(rest <= 100 for rest, _ in rests)
    # something crosses for 20 frames; what it leaves is background again within the hold and a bit
    for rest, _ in rests[1:]:
        assert 100 - 3 * held <= rest
    stats = next_stats(site, "cam1", lambda stats: stats.counts["frames_gated"] > 80)
    assert is_up(stats)  # a camera whose frames are held back is there
    assert stats.gauges["frame_age_s"] < 2 + LATE_S
