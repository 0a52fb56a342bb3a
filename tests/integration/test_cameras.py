"""Cameras as a device meets them: a real RTSP stream, real video files, device nodes that are no
camera; and one contract for every kind of source."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddnn.adapters.broker import free_port
from ddnn.errors import ConfigError, LinkError
from ddnn.protocol.machine import Captured
from ddnn.protocol.messages import Scores, Stats, Status
from ddnn.runtime.bundle import load_bundle
from device_app.app import DeviceSettings, open_capture
from device_app.capture import make_counts
from device_app.sources import open_camera
from tests.integration.test_device import Site, site, write_pictures  # noqa: F401  a fixture
from tests.parts import need
from tests.unit.apps.picamera2_stand_in import install

pytestmark = pytest.mark.priority

SHAPE = (32, 32, 3)
IN_TIME_S = 20.0
RATE_HZ = 10.0
TURN_S = 2  # how long the RTSP server shows a colour
LATE_S = 1.0  # a busy machine encodes, sends and decodes a picture within this
SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's: it has gi
PASSWORD = "hu%40sh"
FLAGS = ("--camera-timeout-s", "2", "--stats-every-s", "0.2")


def need_opencv() -> Any:
    need(importlib.util.find_spec("cv2"), "no OpenCV; pip install 'ddnn[camera]'")
    import cv2

    return cv2


class Rtsp:
    """A camera of the network in a process of its own, to be killed, stopped and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    def uri(self, password: str = PASSWORD) -> str:
        return f"rtsp://viewer:{password}@127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), str(self.port), "viewer", "hu@sh"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=5)
            self._process = None


@pytest.fixture
def rtsp() -> Iterator[Rtsp]:
    need_opencv()
    found = Path(SYSTEM_PYTHON).exists() and (
        subprocess.run([SYSTEM_PYTHON, str(SERVER)], timeout=60, check=False).returncode == 0
    )
    need(
        found,
        "no RTSP server; apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-"
        "base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly",
    )
    server = Rtsp()
    yield server
    server.kill()


def write_video(file: Path, frames: list[np.ndarray], fps: int = 10) -> Path:
    cv2 = need_opencv()
    height, width, _ = frames[0].shape
    video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), fps, (width, height))
    for frame in frames:
        video.write(np.ascontiguousarray(frame[:, :, ::-1]))
    video.release()
    assert file.stat().st_size > 1000
    return file


def next_stats(site: Site, node: str, true: Callable[[Stats], bool]) -> Stats:  # noqa: F811
    until_s = time.monotonic() + IN_TIME_S
    while time.monotonic() < until_s:
        stats: Stats = site.next(Stats, node)
        if true(stats):
            return stats
    pytest.fail(f"not in time; {stats}; {site.fleet.read_last_line(node)}")


def up(stats: Stats) -> bool:
    return stats.gauges["camera_up"] == 1


def away(stats: Stats) -> bool:
    return stats.gauges["camera_up"] == 0


def log_of(site: Site, node: str) -> str:  # noqa: F811
    return (site.directory / "logs" / f"{node}.log").read_text()


# ------------------------------------------------------------------------ RTSP


@pytest.fixture
def secret(tmp_path: Path, rtsp: Rtsp) -> Path:
    file = tmp_path / "camera.uri"
    file.write_text(rtsp.uri() + "\n")
    return file


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_network_camera_that_vanishes_is_reported_and_comes_back(
    how: str,
    site: Site,  # noqa: F811
    rtsp: Rtsp,
    secret: Path,
) -> None:
    """Away at the start, too: the node is up meanwhile, and samples go on once it is there."""
    site.device("cam1", "", "--source-file", str(secret), *FLAGS)
    assert site.next(Status, "cam1").state == "online"
    stats = next_stats(site, "cam1", lambda stats: stats.counts["camera_failures"] >= 1)
    assert away(stats)
    rtsp.start()
    next_stats(site, "cam1", up)
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
    stats = next_stats(site, "cam1", away)
    assert stats.gauges["frame_age_s"] <= 2 + 5 * LATE_S  # noticed in time
    while True:  # what was on its way is through
        try:
            site.heard.get(timeout=0.01)
        except queue.Empty:
            break
    stats = next_stats(site, "cam1", lambda stats: stats.gauges["frame_age_s"] > 4)
    frames = stats.counts["frames"]
    assert next_stats(site, "cam1", away).counts["frames"] == frames
    if how == "killed":
        rtsp.start()
    else:
        rtsp.signal(signal.SIGCONT)
    back_s = time.time()
    stats = next_stats(site, "cam1", up)
    assert stats.counts["camera_reopened"] == 1
    scores = site.next(Scores, "cam1")
    assert scores.captured_at_s >= back_s - 2 * LATE_S  # none of before: those are over 4 s old
    assert scores.sample > ticks[-1]
    log = log_of(site, "cam1")
    shown = f"source rtsp://viewer:***@127.0.0.1:{rtsp.port}/cam"
    assert f"{shown} is up" in log
    assert f"{shown} is back after" in log
    assert "trying again in" in log
    assert PASSWORD not in log
    assert "hu@sh" not in log


@pytest.mark.timeout(90)
def test_nothing_hangs_when_it_ends_while_its_camera_hangs(
    site: Site,  # noqa: F811
    rtsp: Rtsp,
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
    assert "Fatal" not in log_of(site, "cam1")


class Link:
    """The network between a camera and the device: holds back what is sent while it is stalled."""

    def __init__(self, port: int) -> None:
        self.flows = threading.Event()
        self.flows.set()
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._to))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                self.flows.wait(IN_TIME_S)
                sink.sendall(data)

    def close(self) -> None:
        self.flows.set()
        self._listener.close()


@pytest.mark.timeout(90)
def test_every_frame_has_the_time_at_which_it_was_taken(rtsp: Rtsp) -> None:
    """The scene is red and blue by turns, so that a frame shows when it was taken: the first ones
    after opening, and those that were kept while the stream stalled, too."""
    stall_s = 3.0
    rtsp.start()
    link = Link(rtsp.port)
    camera = open_camera(f"rtsp://viewer:{PASSWORD}@127.0.0.1:{link.port}/cam", 5.0)
    ages, told = [], 0
    for number in range(200):
        taken_s = camera.grab()
        now_s = time.monotonic()
        ages.append(now_s - taken_s)
        at_s = time.time() - ages[-1]
        if at_s % TURN_S > LATE_S:
            told += 1
            red = camera.read_image().mean((0, 1)).argmax() == 2  # BGR
            assert red == (int(at_s / TURN_S) % 2 == 0), (number, at_s)
        if number == 40:
            link.flows.clear()
            threading.Timer(stall_s, link.flows.set).start()
    camera.close()
    link.close()
    assert told > 50
    assert stall_s - LATE_S < max(ages) < stall_s + 2 * LATE_S
    assert sorted(ages)[100] < LATE_S  # and most are fresh
    assert ages[-1] < LATE_S


@pytest.mark.timeout(90)
def test_two_devices_show_the_same_instant(
    rtsp: Rtsp, scenes_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scene changes from red to blue and back: at a tick both cameras show one colour."""
    rtsp.start()
    takers, captures = [Taker(), Taker()], []
    bundle = load_bundle(scenes_bundle, lambda path: None, [])  # type: ignore[arg-type,return-value]
    for taker in takers:
        settings = DeviceSettings(node="cam1", bundle="x", source=rtsp.uri(), rate_hz=RATE_HZ)
        captures.append(open_capture(settings, bundle, taker, time.time, make_counts()))
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


def test_a_wrong_password_is_said_without_it(rtsp: Rtsp) -> None:
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
def test_a_device_node_that_is_no_camera(device: str, error: type[Exception], words: str) -> None:
    need_opencv()
    started_s = time.monotonic()
    with pytest.raises(error, match=words):
        open_camera(f"v4l2://{device}", 1.0)
    assert time.monotonic() - started_s < 8  # OpenCV itself would wait 10 s


def test_a_usb_camera_that_is_away_is_no_error(site: Site) -> None:  # noqa: F811
    need_opencv()
    site.device("cam1", "v4l2:///dev/video-none", *FLAGS)
    assert site.next(Status, "cam1").state == "online"
    stats = next_stats(site, "cam1", lambda stats: stats.counts["camera_failures"] >= 2)
    assert away(stats)
    assert "/dev/video-none: No such file or directory; is the camera plugged in?" in log_of(
        site, "cam1"
    )


# ---------------------------------------------------------------------- motion


def test_only_what_moves_is_a_sample(site: Site, tmp_path: Path) -> None:  # noqa: F811
    """Five seconds of a street at rest, then something crosses it; at 20 samples a second."""
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
    assert held - 4 <= ticks[still] - ticks[0] <= held + 1  # the first frame counts as motion
    rests = [gap for gap in gaps if gap > 10]
    assert 1 <= len(rests) <= 2
    # something crosses for 20 frames; what it leaves is background again within the hold and a bit
    for rest in rests:
        assert 100 - 3 * held <= rest <= 100
    stats = next_stats(site, "cam1", lambda stats: stats.counts["frames_gated"] > 80)
    assert up(stats)  # a camera whose frames are held back is there
    assert stats.gauges["frame_age_s"] < 2 + LATE_S


# -------------------------------------------------------------------- --check


def check(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "device_app", "--node", "cam1", "--check", *flags],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_says_what_is_wrong(scenes_bundle: Path, tmp_path: Path) -> None:
    need_opencv()
    state = ["--state", str(tmp_path / "state")]
    bundle = ["--bundle", str(scenes_bundle), *state]
    write_pictures(tmp_path / "pictures", np.zeros((2, 32, 32, 3), np.uint8))
    good = check(*bundle, "--source", f"directory:{tmp_path}/pictures", "--roi", "0,0,0.5,1")
    assert good.returncode == 0, good.stderr
    assert "the configuration is valid" in good.stdout
    assert "a frame of 32x32 pixels" in good.stdout
    hush = "rtsp://me:hush@127.0.0.1:9/live"
    (tmp_path / "uri").write_text(hush)
    (tmp_path / "wrong").write_text("hush")
    for flags, code, words in [
        (["--source", "webcam"], 2, "--source 'webcam'"),
        ([], 2, "either --source or --source-file"),
        (["--source", "video:x", "--roi", "0,0,2,1"], 2, "--roi"),
        (["--source", "video:x", "--motion", "2"], 2, "motion"),
        (["--source", "video:x", "--node", "cam9"], 2, "'cam9' is no device of the bundle"),
        (["--source", "video:x", "--bundle", "/nowhere"], 2, "not a bundle"),
        (["--source", f"video:{tmp_path}/none.mp4"], 2, "no such file"),
        (["--source", "v4l2:///dev/null"], 8, "no camera that gives pictures"),
        (["--source", "picamera://0"], 2, "apt install python3-picamera2"),
        (["--source", hush], 2, "--source-file"),
        (["--source-file", str(tmp_path / "uri")], 8, "rtsp://me:***@127.0.0.1:9/live"),
        (["--source-file", str(tmp_path / "wrong")], 2, "its first line is no source"),
        (["--source-file", str(tmp_path / "none")], 2, "none"),
    ]:
        bad = check(*bundle, *flags)
        assert bad.returncode == code, (flags, bad.stderr)
        assert words in bad.stderr, flags
        assert "hush" not in bad.stderr + bad.stdout
        assert "configuration is valid" not in bad.stdout
        assert bad.stderr.count("error: ") == 1, bad.stderr
        assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("flag", [["--check"], []])
def test_a_32_bit_system_is_refused_with_a_sentence(flag: list[str], tmp_path: Path) -> None:
    """Where LiteRT cannot even be installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import platform, sys\n"
        "platform.machine = lambda: 'armv7l'\n"
        "sys.modules['ai_edge_litert'] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "device_app", "--node", "cam1", "--bundle", "x", *flag],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: this is a 32-bit system (armv7l")
    assert "64-bit edition of Raspberry Pi OS" in done.stderr
    assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------- contract


BUSY_S = 2.0  # as slow as a taker is once


class Taker:
    """Takes samples as the loop does, and can be slow."""

    def __init__(self) -> None:
        self.frames: list[Captured] = []
        self.slow = threading.Event()
        self.attached: Any = None

    def take_frame(self, frame: Captured) -> None:
        if self.slow.is_set():
            self.slow.clear()
            time.sleep(BUSY_S)
        self.frames.append(frame)

    def attach(self, frames: Any) -> None:
        self.attached = frames

    def wait_for(self, count: int) -> None:
        until_s = time.monotonic() + IN_TIME_S
        while len(self.frames) < count:
            assert time.monotonic() < until_s, f"{len(self.frames)} of {count}"
            if self.attached is not None and self.attached.due_s() <= time.monotonic():
                self.take_frame(self.attached.take())
            time.sleep(0.002)


def prepare(kind: str, directory: Path, request: pytest.FixtureRequest) -> str:
    """A source of this kind; its URI."""
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (5, 6, *SHAPE), np.uint8)
    pictures = dice.integers(0, 256, (5, 48, 64, 3), np.uint8)
    match kind:
        case "dataset":
            np.savez(directory / "own.npz", images=images, labels=np.arange(5))
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
            rtsp: Rtsp = request.getfixturevalue("rtsp")
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
    taker = Taker()
    capture = open_capture(settings, bundle, taker, time.time, make_counts())
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
        taker.slow.set()  # who takes them is busy for forty ticks
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
