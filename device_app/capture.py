"""Capture of samples from a source of frames.

source ── attempt (a thread that may be abandoned) ── region, scaling, motion gate ── samples
             ^
          Capture: opens the source again when it fails or hangs, and logs it
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ddnn.core.pace import PaceHistory
from ddnn.errors import DdnnError
from ddnn.protocol.machine import Captured
from ddnn.runtime.loop import Frames
from ddnn.runtime.pictures import Image
from device_app.picture import MotionGate
from device_app.sources import FrameSource, LiveCamera, UnreadableFrameError
from device_app.ticks import Clock, NearestFrames, PaceReader, SiteClock, StoredFrames, Tap

log = logging.getLogger(__name__)

REOPEN_S = (1.0, 30.0)  # back-off, before jitter
MAX_HUNG = 3  # threads that may hang in a driver before no further one is started
CLOSE_S = 0.5  # limit for closing a camera
MAX_WAIT_S = 3600.0  # for waits without a deadline


def make_counts() -> dict[str, int]:
    """New counters of a source. They have every key from the start, as other threads read them."""
    return {
        "frames": 0,  # received from the source
        "frames_dropped": 0,  # another frame was nearer to the tick
        "frames_stale": 0,  # too old to be used
        "frames_late": 0,  # of a stored source: ticks that had passed
        "frames_shed": 0,  # ticks that the site does not take at present
        "frames_gated": 0,  # without motion
        "frames_unreadable": 0,  # of a stored source, passed over
        "camera_failures": 0,  # the source did not open, failed or hung
        "camera_reopened": 0,  # the source gave frames after a failure
    }


class Sink(Protocol):
    """Receiver of the samples: ddnn.runtime.loop.Loop."""

    def take_frame(self, frame: Captured) -> None: ...
    def attach(self, frames: Frames) -> None: ...


class Attempt:
    """One opening of the source and its frames, until it fails or is abandoned."""

    def __init__(self, capture: Capture, limit_s: float) -> None:
        self.monotonic = capture.monotonic
        self.due_s = self.monotonic() + 2 * limit_s  # opening takes longer than reading
        self.has_frame = False
        self.done = threading.Event()
        self.failure = "its thread was ended"  # "" after a normal end
        self._capture, self._limit_s = capture, limit_s
        self._abandoned = threading.Event()

    @property
    def is_current(self) -> bool:
        """Whether the attempt is not abandoned."""
        return not self._abandoned.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for `seconds`, or until the attempt is abandoned."""
        self._abandoned.wait(max(0.0, seconds))

    def abandon(self) -> None:
        """Ignore everything the attempt does from now on."""
        self._abandoned.set()

    def report_frame(self, taken_s: float) -> None:
        """Report a frame, taken at this monotonic time."""
        if self.is_current:
            self.due_s = self.monotonic() + self._limit_s
            self._capture.record_frame(self, taken_s)
            self.has_frame = True


class Capture:
    """Keeps one source open for one node, and opens it again after failures.

    shown:   the source as it may be logged; secret: text that is replaced by it in messages
    work:    opens the source and reads frames until it fails; its exceptions are logged
    limit_s: an attempt without a frame for this time (twice this time after opening) is abandoned
    monotonic: the clock of the frames and of the limits, in seconds

    Drivers and decoders may block for ever, so each attempt has its own thread. An abandoned
    attempt delivers no frames, and closes its camera if its driver returns.
    """

    def __init__(
        self,
        shown: str,
        work: Callable[[Attempt], None],
        counts: dict[str, int],
        *,
        limit_s: float = math.inf,
        secret: str = "",
        generator: random.Random | None = None,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.counts, self.monotonic = counts, monotonic
        self._shown, self._secret, self._work, self._limit_s = shown, secret, work, limit_s
        self._generator = generator or random.Random()  # noqa: S311  jitter
        self._started_s = monotonic()
        self._newest_s: float | None = None  # monotonic: when the newest frame was taken
        self._up = False
        self._away_since_s = 0.0
        self._stop = threading.Event()
        self._attempt: Attempt | None = None
        self._threads: list[threading.Thread] = []  # of attempts
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def read_gauges(self) -> dict[str, float]:
        """camera_up: 0 or 1; frame_age_s: of the newest frame, since the start without any."""
        newest_s = self._started_s if self._newest_s is None else self._newest_s
        age_s = max(0.0, self.monotonic() - newest_s)
        return {"camera_up": float(self._up), "frame_age_s": age_s}

    def start(self) -> None:
        """Start the thread that opens the source."""
        self._thread.start()

    def close(self) -> None:
        """End the capture, within a second even if a driver hangs."""
        self._stop.set()
        attempt = self._attempt
        if attempt is not None:
            attempt.abandon()
            attempt.done.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        until_s = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def record_frame(self, attempt: Attempt, taken_s: float) -> None:
        """Count a frame of an attempt; log a source that is up or back."""
        if not attempt.has_frame:
            self._up = True
            if self._newest_s is None:
                log.info("source %s is up", self._shown)
            else:
                self.counts["camera_reopened"] += 1
                away_s = self.monotonic() - self._away_since_s
                log.info("source %s is back after %.1f s", self._shown, away_s)
        self.counts["frames"] += 1
        self._newest_s = taken_s

    def _run(self) -> None:
        wait_s = REOPEN_S[0]
        while not self._stop.is_set():
            attempt = self._attempt = Attempt(self, self._limit_s)
            thread = threading.Thread(target=self._try, args=(attempt,), name="camera", daemon=True)
            self._threads = [*self._list_hung(), thread]
            thread.start()
            reason = self._watch(attempt)
            if not reason:
                return
            attempt.abandon()
            if self._up:
                self._up, self._away_since_s = False, self.monotonic()
            if attempt.has_frame:
                wait_s = REOPEN_S[0]
            self.counts["camera_failures"] += 1
            pause_s = wait_s * self._generator.uniform(0.5, 1.0)
            wait_s = min(2 * wait_s, REOPEN_S[1])
            log.error("source %s: %s; trying again in %.1f s", self._shown, reason, pause_s)
            self._stop.wait(pause_s)
            if len(self._list_hung()) >= MAX_HUNG:
                log.error(
                    "source %s: its driver hangs; restart this program if it does not recover",
                    self._shown,
                )
            while len(self._list_hung()) >= MAX_HUNG and not self._stop.is_set():
                self._stop.wait(REOPEN_S[0])

    def _list_hung(self) -> list[threading.Thread]:
        """Threads of former attempts that have not ended."""
        return [thread for thread in self._threads if thread.is_alive()]

    def _try(self, attempt: Attempt) -> None:
        try:
            self._work(attempt)
            attempt.failure = ""
        except Exception as error:  # drivers and decoders raise exceptions of any type
            plain = isinstance(error, (DdnnError, OSError)) and str(error)
            text = str(error) if plain else repr(error)
            attempt.failure = text.replace(self._secret, self._shown) if self._secret else text
        finally:
            attempt.done.set()

    def _watch(self, attempt: Attempt) -> str:
        """Wait for the end of an attempt; returns the reason of a failure, or ""."""
        while not self._stop.is_set():
            left_s = min(attempt.due_s - self.monotonic(), MAX_WAIT_S)
            if attempt.done.wait(max(0.0, left_s)):
                return "" if self._stop.is_set() else attempt.failure
            if self.monotonic() >= attempt.due_s:
                after = f"no frame for {self._limit_s:g} s" if attempt.has_frame else "no answer"
                return f"{after}; is the camera powered and reachable?"
        return ""


class Shot(NamedTuple):
    """A live frame: the section's input, and the camera's picture where there is a tap."""

    image: Image
    picture: Image | None
    bgr: bool


class Samples:
    """Output of a capture: frames that the motion gate admits become samples of the sink.

    tap: gives the pictures of samples for a recording
    """

    def __init__(
        self,
        sink: Sink,
        period_s: float,
        clock: SiteClock,
        counts: dict[str, int],
        gate: MotionGate | None = None,
        pace: PaceReader = PaceHistory,
        tap: Tap | None = None,
    ) -> None:
        """pace: which ticks the site takes."""
        self.tap = tap
        self.sink, self.period_s, self.clock, self.counts = sink, period_s, clock, counts
        self.pace = pace
        self._gate = gate

    def send_shot(self, attempt: Attempt, number: int, taken_s: float, shot: Shot) -> None:
        """Send a live frame as `send` does, with its picture where a recording wants that."""
        picture = None
        if self.tap is not None and shot.picture is not None:
            picture = self.tap(number, shot.picture, shot.bgr)
        self.send(attempt, Captured(number, taken_s, {"image": shot.image}, None, picture))

    def send(self, attempt: Attempt, frame: Captured) -> None:
        """Send the frame to the sink unless the attempt is abandoned or the gate is closed."""
        if not attempt.is_current:
            return
        gate = self._gate
        if gate is None or gate.admit(frame.image["image"], frame.captured_at_s):
            self.sink.take_frame(frame)
        else:
            self.counts["frames_gated"] += 1


def make_stored_work(
    open_source: Callable[[], FrameSource], samples: Samples
) -> Callable[[Attempt], None]:
    """Make the work of an attempt on a stored source: a frame at every tick.

    The tick of a frame that cannot be read has no sample.
    """
    known: set[str] = set()  # errors that were logged

    def work(attempt: Attempt) -> None:
        frames = StoredFrames(
            open_source(),
            samples.period_s,
            samples.clock,
            attempt.monotonic,
            attempt.report_frame,
            samples.pace,
            samples.counts,
            samples.tap,
        )
        if frames.source.preloaded:
            samples.sink.attach(frames)  # the sink reads the frames without a thread between
            return
        while attempt.is_current:
            attempt.wait(frames.due_s() - attempt.monotonic())
            if not attempt.is_current:
                return
            try:
                frame = frames.take()
            except UnreadableFrameError as error:
                samples.counts["frames_unreadable"] += 1
                if str(error) not in known:
                    known.add(str(error))
                    log.warning("%s; its samples have no view of this camera", error)
            else:
                samples.send(attempt, frame)

    return work


def make_live_work(
    open_camera: Callable[[], LiveCamera], scale: Callable[[Image, bool], Image], samples: Samples
) -> Callable[[Attempt], None]:
    """Make the work of an attempt on a live camera: every frame is read, those nearest to the ticks
    are used.

    scale: converts the camera's picture (and whether it is BGR) to the section's input
    """
    nearest = NearestFrames[Shot](samples.period_s, samples.counts, samples.pace)

    def read(camera: LiveCamera) -> Shot:
        picture = camera.read_image()
        shown = picture if samples.tap is not None else None
        return Shot(scale(picture, camera.bgr), shown, camera.bgr)

    def work(attempt: Attempt) -> None:
        camera = open_camera()
        try:
            while attempt.is_current:
                taken_s = camera.grab()
                if not attempt.is_current:
                    return
                attempt.report_frame(taken_s)
                age_s = attempt.monotonic() - taken_s
                for sample in nearest.offer(samples.clock(), age_s, lambda: read(camera)):
                    samples.send_shot(attempt, sample.number, sample.taken_s, sample.image)
        finally:
            camera.close()

    return work
