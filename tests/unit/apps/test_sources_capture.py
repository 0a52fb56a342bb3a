"""A source that fails or hangs is reported and opened again, and closing never hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddnn.core.site_time import SiteTime
from ddnn.errors import ConfigError, LinkError
from ddnn.protocol.machine import Captured
from device_app import capture as module
from device_app.capture import (
    Attempt,
    Capture,
    Samples,
    make_counts,
    make_live_work,
    make_stored_work,
)
from device_app.picture import MotionGate
from device_app.sources import Frame
from device_app.ticks import SiteClock, read_own_clock

SHAPE = (32, 32, 3)
P = 0.002
LIMIT_S = 0.05
EPOCH_S = 1.76e9
IN_TIME_S = 60.0


class World:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def monotonic(self) -> float:
        return self.now_s

    def clock(self) -> SiteTime:
        return SiteTime(0, EPOCH_S + self.now_s)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class RecordingSink:
    def __init__(self) -> None:
        self.frames: list[Captured] = []
        self.attached: list[Any] = []

    def take_frame(self, frame: Captured) -> None:
        self.frames.append(frame)

    def attach(self, frames: Any) -> None:
        self.attached.append(frames)


class FailingSource:
    """A source of two stored frames that then fails."""

    preloaded = False

    def __init__(self, error: Exception) -> None:
        self.error, self.left = error, 2

    def read_frame(self, tick: int) -> Frame:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return Frame(np.zeros(SHAPE, np.uint8), None)


class Camera:
    """A live camera that calls a function of the test at each frame."""

    bgr = False

    def __init__(self, world: World, frames: Callable[[int], None]) -> None:
        self._frames, self.count, self.closed = frames, 0, threading.Event()
        self._world = world

    def grab(self) -> float:
        self._frames(self.count)
        self.count += 1
        return self._world.monotonic()

    def read_image(self) -> np.ndarray:
        return np.zeros(SHAPE, np.uint8)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REOPEN_S", (0.001, 0.002))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def start() -> Iterator[Callable[..., Capture]]:
    running: list[Capture] = []

    def start(work: Callable[[Attempt], None], counts: dict[str, int], **keys: Any) -> Capture:
        running.append(Capture("video:x", work, counts, **keys))
        running[-1].start()
        return running[-1]

    yield start
    for capture in running:
        capture.close()


def make_samples(
    sink: RecordingSink, gate: MotionGate | None = None, clock: SiteClock = read_own_clock
) -> Samples:
    return Samples(sink, P, clock, make_counts(), gate)


def keep(image: np.ndarray, bgr: bool) -> np.ndarray:
    return image


def wait_until(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.001)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("x"),
        OSError("x"),
        ValueError("x"),
        StopIteration(),
        ImportError("x"),
        Image.DecompressionBombError("x"),
        SyntaxError("broken PNG file"),
        SystemExit(),
        LinkError(""),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_source_that_fails_is_opened_again(
    error: Exception,
    sink: RecordingSink,
    start: Callable[..., Capture],
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = 0

    def open_camera() -> FailingSource:
        nonlocal opened
        opened += 1
        if opened % 2 or opened > 6:
            raise error
        return FailingSource(error)

    samples = make_samples(sink)
    with caplog.at_level(logging.INFO):
        capture = start(make_stored_work(open_camera, samples), samples.counts)
        wait_until(lambda: opened > 6)
        capture.close()
    ticks = [frame.sample for frame in sink.frames]
    assert len(ticks) == 6
    assert ticks == sorted(set(ticks))  # no tick twice
    assert caplog.text.count("trying again") >= 6  # never silently
    assert caplog.text.count("is up") == 1
    assert caplog.text.count("is back") == 2
    assert capture.counts["frames"] == 6
    assert capture.counts["camera_failures"] >= 6
    assert capture.counts["camera_reopened"] == 2
    assert capture.read_gauges()["camera_up"] == 0


def test_a_preloaded_source_is_attached_and_counted(
    sink: RecordingSink, start: Callable[..., Capture]
) -> None:
    class PreloadedSource(FailingSource):
        preloaded = True

    samples = make_samples(sink)
    capture = start(
        make_stored_work(lambda: PreloadedSource(ValueError("")), samples), samples.counts
    )
    assert capture.read_gauges()["camera_up"] == 0
    wait_until(lambda: sink.attached)
    sink.attached[0].take()
    assert capture.counts["frames"] == 1
    assert capture.read_gauges()["camera_up"] == 1
    assert sink.frames == []


def test_a_camera_that_gives_frames_is_up(
    world: World, sink: RecordingSink, start: Callable[..., Capture]
) -> None:
    enough = threading.Event()

    def wait(count: int) -> None:
        enough.wait(IN_TIME_S if len(sink.frames) > 20 else 0)
        world.advance(P / 4)

    camera = Camera(world, wait)
    samples = make_samples(sink, clock=world.clock)
    capture = start(
        make_live_work(lambda: camera, keep, samples),
        samples.counts,
        limit_s=LIMIT_S,
        monotonic=world.monotonic,
    )
    wait_until(lambda: len(sink.frames) > 20)
    assert capture.read_gauges()["camera_up"] == 1
    assert capture.read_gauges()["frame_age_s"] <= P / 4
    world.advance(LIMIT_S / 2)
    assert capture.read_gauges()["frame_age_s"] == pytest.approx(LIMIT_S / 2, abs=P / 4)
    enough.set()
    capture.close()
    assert camera.closed.is_set()
    ticks = [frame.sample for frame in sink.frames]
    assert ticks == sorted(set(ticks))
    for frame in sink.frames:
        assert abs(frame.captured_at_s - frame.sample * P) <= P / 2 + 1e-4
    counts = capture.counts
    assert camera.count - counts["frames"] in (0, 1)  # what comes while it closes is not counted
    gone = counts["frames_dropped"] + counts["frames_stale"] + len(ticks)
    assert gone in (counts["frames"], counts["frames"] - 1)  # each is accounted for; one is held


@pytest.mark.parametrize("hangs_at", [0, 3])
def test_a_camera_that_hangs_is_abandoned(
    hangs_at: int,
    world: World,
    sink: RecordingSink,
    start: Callable[..., Capture],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The source is opened again, and later frames of the first attempt are ignored."""
    wake = threading.Event()

    def hang(count: int) -> None:
        if count == hangs_at:
            world.advance(2 * LIMIT_S)
            assert wake.wait(IN_TIME_S)

    cameras = [Camera(world, hang), Camera(world, lambda count: time.sleep(0.001))]
    opened: list[Camera] = []

    def open_camera() -> Camera:
        opened.append(cameras[len(opened)])
        return opened[-1]

    samples = make_samples(sink, clock=world.clock)
    with caplog.at_level(logging.INFO):
        capture = start(
            make_live_work(open_camera, keep, samples),
            samples.counts,
            limit_s=LIMIT_S,
            monotonic=world.monotonic,
        )
        wait_until(lambda: len(opened) == 2 and cameras[1].count > 5)
    assert ("no frame for 0.05 s" if hangs_at else "no answer") in caplog.text
    assert capture.read_gauges()["camera_up"] == 1
    assert capture.counts["camera_reopened"] == (1 if hangs_at else 0)
    assert not cameras[0].closed.is_set()
    wake.set()
    assert cameras[0].closed.wait(IN_TIME_S)  # its device is free again
    assert cameras[0].count == hangs_at + 1
    assert capture.counts["camera_failures"] == 1


def test_a_camera_that_hangs_while_opening_is_abandoned(
    world: World,
    sink: RecordingSink,
    start: Callable[..., Capture],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At most MAX_HUNG threads hang, and closing does not wait for them."""
    monkeypatch.setattr(module, "CLOSE_S", 0.01)
    wakes = [threading.Event() for _ in range(module.MAX_HUNG + 1)]
    started_s, opened, pauses, ended = world.now_s, 0, 0, []

    def open_camera() -> Camera:
        nonlocal opened
        number, opened = opened, opened + 1
        if number <= module.MAX_HUNG:
            world.advance(2 * LIMIT_S)
            wakes[number].wait(IN_TIME_S)
        ended.append(number)
        raise LinkError("away")

    samples = make_samples(sink, clock=world.clock)
    capture = Capture(
        "video:x",
        make_live_work(open_camera, keep, samples),
        samples.counts,
        limit_s=LIMIT_S,
        monotonic=world.monotonic,
    )
    wait = capture._stop.wait

    def count_pause(timeout: float) -> bool:
        nonlocal pauses
        pauses += 1
        return wait(timeout)

    monkeypatch.setattr(capture._stop, "wait", count_pause)
    capture.start()
    wait_until(lambda: pauses > module.MAX_HUNG + 10)
    assert opened == module.MAX_HUNG
    assert capture.read_gauges() == {"camera_up": 0.0, "frame_age_s": world.now_s - started_s}
    wakes[0].set()
    wait_until(lambda: opened > module.MAX_HUNG)
    capture.close()
    assert ended == [0]  # the others hang still
    for wake in wakes:
        wake.set()


def test_the_password_in_a_drivers_message_is_masked(
    sink: RecordingSink, caplog: pytest.LogCaptureFixture
) -> None:
    def work(attempt: Attempt) -> None:
        raise RuntimeError("cannot open rtsp://me:hush@cam/live")

    capture = Capture(
        "rtsp://me:***@cam/live", work, make_counts(), secret="rtsp://me:hush@cam/live"
    )
    with caplog.at_level(logging.INFO):
        capture.start()
        wait_until(lambda: "cannot open" in caplog.text)
        capture.close()
    assert "hush" not in caplog.text
    assert "cannot open rtsp://me:***@cam/live" in caplog.text


def test_back_off_grows_with_jitter(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REOPEN_S", (1.0, 30.0))
    works = iter([False] * 8 + [True, False])
    waited: list[float] = []
    ended = threading.Event()

    def work(attempt: Attempt) -> None:
        if next(works, None) is None:
            capture._stop.set()
            ended.set()
        elif sink.frames:
            attempt.report_frame(time.monotonic())
        raise LinkError("away")

    capture = Capture("video:x", work, make_counts())
    monkeypatch.setattr(capture._stop, "wait", waited.append)  # virtual: it takes no time
    capture.start()
    assert ended.wait(IN_TIME_S)
    for i, pause_s in enumerate(waited[:8]):
        full_s = min(2.0**i, 30.0)
        assert full_s / 2 <= pause_s <= full_s
    assert len({pause_s / min(2.0**i, 30.0) for i, pause_s in enumerate(waited[:8])}) == 8


def test_the_gate_withholds_frames_and_counts_them(
    world: World, sink: RecordingSink, start: Callable[..., Capture]
) -> None:
    camera = Camera(world, lambda count: world.advance(P))
    samples = make_samples(sink, MotionGate(0.01, hold_s=0.0), world.clock)
    capture = start(
        make_live_work(lambda: camera, keep, samples),
        samples.counts,
        limit_s=LIMIT_S,
        monotonic=world.monotonic,
    )
    wait_until(lambda: capture.counts["frames_gated"] > 10)
    assert len(sink.frames) == 1  # the first
