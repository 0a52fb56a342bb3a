"""A source that fails, hangs or vanishes: it is reported and opened again, and nothing hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddnn.errors import ConfigError, LinkError
from ddnn.protocol.machine import Captured
from device_app import capture as module
from device_app.capture import Attempt, Capture, Samples, live, no_counts, stored
from device_app.picture import MotionGate
from device_app.sources import Frame

SHAPE = (32, 32, 3)
P = 0.002
LIMIT_S = 0.05
EPOCH_S = 1.76e9
IN_TIME_S = 60.0


class World:
    """A clock that goes on only as the test says."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return EPOCH_S + self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class Taker:
    def __init__(self) -> None:
        self.frames: list[Captured] = []
        self.attached: list[Any] = []

    def captured(self, frame: Captured) -> None:
        self.frames.append(frame)

    def attach(self, frames: Any) -> None:
        self.attached.append(frames)


class Failing:
    """Gives two stored frames, then fails."""

    at_hand = False

    def __init__(self, error: Exception) -> None:
        self.error, self.left = error, 2

    def frame(self, tick: int) -> Frame:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return Frame(np.zeros(SHAPE, np.uint8), None)


class Camera:
    """A live camera that does what the test says at each frame."""

    bgr = False

    def __init__(self, world: World, frames: Callable[[int], None]) -> None:
        self._frames, self.count, self.closed = frames, 0, threading.Event()
        self._world = world

    def grab(self) -> float:
        self._frames(self.count)
        self.count += 1
        return self._world.monotonic()

    def image(self) -> np.ndarray:
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
def taker() -> Taker:
    return Taker()


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


def samples(
    taker: Taker, gate: MotionGate | None = None, wall: Callable[[], float] = time.time
) -> Samples:
    return Samples(taker, P, wall, no_counts(), gate)


def unscaled(image: np.ndarray, bgr: bool) -> np.ndarray:
    return image


def until(true: Callable[[], object]) -> None:
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
    error: Exception, taker: Taker, start: Callable[..., Capture], caplog: pytest.LogCaptureFixture
) -> None:
    opened = 0

    def opens() -> Failing:
        nonlocal opened
        opened += 1
        if opened % 2:
            raise error
        return Failing(error)

    where = samples(taker)
    with caplog.at_level(logging.INFO):
        capture = start(stored(opens, where), where.counts)
        until(lambda: opened > 6)
        capture.close()
    ticks = [frame.sample for frame in taker.frames]
    assert len(ticks) == 6
    assert ticks == sorted(set(ticks))  # no tick twice
    assert caplog.text.count("trying again") in (6, 7)  # never silently
    assert caplog.text.count("is up") == 1
    assert caplog.text.count("is back") == 2
    assert capture.counts["frames"] == 6
    assert capture.counts["camera_failures"] in (6, 7)
    assert capture.counts["camera_reopened"] == 2
    assert capture.gauges()["camera_up"] == 0


def test_a_source_at_hand_is_attached_and_counted(
    taker: Taker, start: Callable[..., Capture]
) -> None:
    class AtHand(Failing):
        at_hand = True

    where = samples(taker)
    capture = start(stored(lambda: AtHand(ValueError("")), where), where.counts)
    assert capture.gauges()["camera_up"] == 0
    until(lambda: taker.attached)
    taker.attached[0].take()
    assert capture.counts["frames"] == 1
    assert capture.gauges()["camera_up"] == 1
    assert taker.frames == []


def test_a_camera_that_gives_frames_is_up(
    world: World, taker: Taker, start: Callable[..., Capture]
) -> None:
    enough = threading.Event()

    def wait(count: int) -> None:
        enough.wait(IN_TIME_S if len(taker.frames) > 20 else 0)
        world.advance(P / 4)

    camera = Camera(world, wait)
    where = samples(taker, wall=world.wall)
    capture = start(
        live(lambda: camera, unscaled, where),
        where.counts,
        limit_s=LIMIT_S,
        monotonic=world.monotonic,
    )
    until(lambda: len(taker.frames) > 20)
    assert capture.gauges()["camera_up"] == 1
    assert capture.gauges()["frame_age_s"] <= P / 4
    world.advance(LIMIT_S / 2)
    assert capture.gauges()["frame_age_s"] == pytest.approx(LIMIT_S / 2, abs=P / 4)
    enough.set()
    capture.close()
    assert camera.closed.is_set()
    ticks = [frame.sample for frame in taker.frames]
    assert ticks == sorted(set(ticks))
    for frame in taker.frames:
        assert abs(frame.captured_at_s - frame.sample * P) <= P / 2 + 1e-4
    counts = capture.counts
    assert camera.count - counts["frames"] in (0, 1)  # what comes while it closes is not counted
    gone = counts["frames_dropped"] + counts["frames_stale"] + len(ticks)
    assert gone in (counts["frames"], counts["frames"] - 1)  # each is accounted for; one is held


@pytest.mark.parametrize("hangs_at", [0, 3])
def test_a_camera_that_hangs_is_abandoned(
    hangs_at: int,
    world: World,
    taker: Taker,
    start: Callable[..., Capture],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The second one is opened in its place; what the first one says later is ignored."""
    wake = threading.Event()

    def hang(count: int) -> None:
        if count == hangs_at:
            world.advance(2 * LIMIT_S)
            assert wake.wait(IN_TIME_S)

    cameras = [Camera(world, hang), Camera(world, lambda count: time.sleep(0.001))]
    opened: list[Camera] = []

    def opens() -> Camera:
        opened.append(cameras[len(opened)])
        return opened[-1]

    where = samples(taker, wall=world.wall)
    with caplog.at_level(logging.INFO):
        capture = start(
            live(opens, unscaled, where),
            where.counts,
            limit_s=LIMIT_S,
            monotonic=world.monotonic,
        )
        until(lambda: len(opened) == 2 and cameras[1].count > 5)
    assert ("no frame for 0.05 s" if hangs_at else "no answer") in caplog.text
    assert capture.gauges()["camera_up"] == 1
    assert capture.counts["camera_reopened"] == (1 if hangs_at else 0)
    assert not cameras[0].closed.is_set()
    wake.set()
    assert cameras[0].closed.wait(IN_TIME_S)  # its device is free again
    assert cameras[0].count == hangs_at + 1
    assert capture.counts["camera_failures"] == 1


def test_a_camera_that_hangs_in_opening(
    world: World,
    taker: Taker,
    start: Callable[..., Capture],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No more than so many threads are left hanging, and closing waits for none of them."""
    monkeypatch.setattr(module, "CLOSE_S", 0.01)
    wakes = [threading.Event() for _ in range(module.MOST_HUNG + 1)]
    started_s, opened, pauses, ended = world.now_s, 0, 0, []

    def opens() -> Camera:
        nonlocal opened
        number, opened = opened, opened + 1
        if number <= module.MOST_HUNG:
            world.advance(2 * LIMIT_S)
            wakes[number].wait(IN_TIME_S)
        ended.append(number)
        raise LinkError("away")

    where = samples(taker, wall=world.wall)
    capture = Capture(
        "video:x",
        live(opens, unscaled, where),
        where.counts,
        limit_s=LIMIT_S,
        monotonic=world.monotonic,
    )
    wait = capture._stop.wait

    def counted(timeout: float) -> bool:
        nonlocal pauses
        pauses += 1
        return wait(timeout)

    monkeypatch.setattr(capture._stop, "wait", counted)
    capture.start()
    until(lambda: pauses > module.MOST_HUNG + 10)
    assert opened == module.MOST_HUNG
    assert capture.gauges() == {"camera_up": 0.0, "frame_age_s": world.now_s - started_s}
    wakes[0].set()
    until(lambda: opened > module.MOST_HUNG)
    capture.close()
    assert ended == [0]  # the others hang still
    for wake in wakes:
        wake.set()


def test_the_password_is_not_in_what_a_driver_says(
    taker: Taker, caplog: pytest.LogCaptureFixture
) -> None:
    def work(attempt: Attempt) -> None:
        raise RuntimeError("cannot open rtsp://me:hush@cam/live")

    capture = Capture("rtsp://me:***@cam/live", work, no_counts(), secret="rtsp://me:hush@cam/live")
    with caplog.at_level(logging.INFO):
        capture.start()
        until(lambda: "cannot open" in caplog.text)
        capture.close()
    assert "hush" not in caplog.text
    assert "cannot open rtsp://me:***@cam/live" in caplog.text


def test_back_off_grows_with_jitter_and_starts_anew(
    taker: Taker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REOPEN_S", (1.0, 30.0))
    works = iter([False] * 8 + [True, False])
    waited: list[float] = []
    ended = threading.Event()

    def work(attempt: Attempt) -> None:
        if next(works, None) is None:
            capture._stop.set()
            ended.set()
        elif taker.frames:
            attempt.frame(time.monotonic())
        raise LinkError("away")

    capture = Capture("video:x", work, no_counts())
    monkeypatch.setattr(capture._stop, "wait", waited.append)  # virtual: it takes no time
    capture.start()
    assert ended.wait(IN_TIME_S)
    for i, pause_s in enumerate(waited[:8]):
        full_s = min(2.0**i, 30.0)
        assert full_s / 2 <= pause_s <= full_s
    assert len({pause_s / min(2.0**i, 30.0) for i, pause_s in enumerate(waited[:8])}) == 8


def test_the_gate_holds_back_and_counts(
    world: World, taker: Taker, start: Callable[..., Capture]
) -> None:
    camera = Camera(world, lambda count: world.advance(P))
    where = samples(taker, MotionGate(0.01, hold_s=0.0), world.wall)
    capture = start(
        live(lambda: camera, unscaled, where),
        where.counts,
        limit_s=LIMIT_S,
        monotonic=world.monotonic,
    )
    until(lambda: capture.counts["frames_gated"] > 10)
    assert len(taker.frames) == 1  # the first
