"""Keeps a source giving frames, and makes samples of them.

source ── attempt (a thread that may be abandoned) ── region, scaling, motion gate ── samples
             ^
          Capture: opens it again when it fails or gives nothing, and says so
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ddnn.errors import DdnnError
from ddnn.protocol.machine import Captured
from ddnn.runtime.loop import Frames
from device_app.picture import Image, MotionGate
from device_app.sources import FrameSource, LiveCamera
from device_app.ticks import Clock, Clocked, Nearest

log = logging.getLogger(__name__)

REOPEN_S = (1.0, 30.0)  # back-off, before jitter
MOST_HUNG = 3  # threads that hang in a driver at a time; no further one is started beside them
CLOSE_S = 0.5  # for a camera to be switched off
LONGEST_WAIT_S = 3600.0  # for waits without a deadline


def no_counts() -> dict[str, int]:
    """All that a source counts. Every key is there from the start: other threads read it."""
    return {
        "frames": 0,  # that the source gave
        "frames_dropped": 0,  # another one was nearer to the tick
        "frames_stale": 0,  # came too late to be used
        "frames_gated": 0,  # nothing moved in them
        "camera_failures": 0,  # the source could not be opened, failed, or gave nothing in time
        "camera_reopened": 0,  # it gave frames again
    }


class Sink(Protocol):
    """Who takes the samples: ddnn.runtime.loop.Loop."""

    def captured(self, frame: Captured) -> None: ...
    def attach(self, frames: Frames) -> None: ...


class Attempt:
    """One opening of the source and what follows, until it fails or is abandoned."""

    def __init__(self, capture: Capture, limit_s: float) -> None:
        self.monotonic = capture.monotonic
        self.due_s = self.monotonic() + 2 * limit_s  # opening takes longer than reading
        self.gave = False  # a frame
        self.done = threading.Event()
        self.failure = "its thread was ended"  # "" once it has ended as it should
        self._capture, self._limit_s = capture, limit_s
        self._abandoned = threading.Event()

    @property
    def current(self) -> bool:
        return not self._abandoned.is_set()

    def wait(self, seconds: float) -> None:
        """Until so long has passed, or it is abandoned."""
        self._abandoned.wait(max(0.0, seconds))

    def abandon(self) -> None:
        self._abandoned.set()

    def frame(self, taken_s: float) -> None:
        """There is a frame, taken at this monotonic time."""
        if self.current:
            self.due_s = self.monotonic() + self._limit_s
            self._capture.arrived(self, taken_s)
            self.gave = True


class Capture:
    """Frames of one source for one node, whatever becomes of the source.

    shown:   the source as it may be logged;  secret: what is replaced by it in messages
    work:    opens the source and works until it fails; what it raises is reported
    limit_s: without a frame for so long (for twice as long after opening) it is abandoned
    monotonic: the clock that frames are stamped and limits are judged by

    Drivers and decoders may block for ever, so each attempt has a thread of its own. An abandoned
    one gives nothing any more, and closes its camera if its driver ever returns.
    """

    def __init__(
        self,
        shown: str,
        work: Callable[[Attempt], None],
        counts: dict[str, int],
        *,
        limit_s: float = math.inf,
        secret: str = "",
        dice: random.Random | None = None,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.counts, self.monotonic = counts, monotonic
        self._shown, self._secret, self._work, self._limit_s = shown, secret, work, limit_s
        self._dice = dice or random.Random()  # noqa: S311  jitter
        self._started_s = monotonic()
        self._newest_s: float | None = None  # monotonic: when the newest frame was taken
        self._up = False
        self._away_since_s = 0.0
        self._stop = threading.Event()
        self._attempt: Attempt | None = None
        self._threads: list[threading.Thread] = []  # of attempts
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def gauges(self) -> dict[str, float]:
        """camera_up: 0 or 1. frame_age_s: of the newest frame; since the start without any."""
        newest_s = self._started_s if self._newest_s is None else self._newest_s
        age_s = max(0.0, self.monotonic() - newest_s)
        return {"camera_up": float(self._up), "frame_age_s": age_s}

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End it, within a second even where a driver hangs."""
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

    def arrived(self, attempt: Attempt, taken_s: float) -> None:
        """An attempt has a frame."""
        if not attempt.gave:
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
            self._threads = [*self._hung(), thread]
            thread.start()
            why = self._watch(attempt)
            if not why:
                return
            attempt.abandon()
            if self._up:
                self._up, self._away_since_s = False, self.monotonic()
            if attempt.gave:
                wait_s = REOPEN_S[0]
            self.counts["camera_failures"] += 1
            pause_s = wait_s * self._dice.uniform(0.5, 1.0)
            wait_s = min(2 * wait_s, REOPEN_S[1])
            log.error("source %s: %s; trying again in %.1f s", self._shown, why, pause_s)
            self._stop.wait(pause_s)
            if len(self._hung()) >= MOST_HUNG:
                log.error(
                    "source %s: its driver hangs; start this program again if that does not end",
                    self._shown,
                )
            while len(self._hung()) >= MOST_HUNG and not self._stop.is_set():
                self._stop.wait(REOPEN_S[0])

    def _hung(self) -> list[threading.Thread]:
        """Threads of former attempts that have not ended."""
        return [thread for thread in self._threads if thread.is_alive()]

    def _try(self, attempt: Attempt) -> None:
        try:
            self._work(attempt)
            attempt.failure = ""
        except Exception as error:  # drivers and decoders raise whatever they like
            plain = isinstance(error, (DdnnError, OSError)) and str(error)
            words = str(error) if plain else repr(error)
            attempt.failure = words.replace(self._secret, self._shown) if self._secret else words
        finally:
            attempt.done.set()

    def _watch(self, attempt: Attempt) -> str:
        """Wait for the end of an attempt; why it ended, nothing where that is as it should be."""
        while not self._stop.is_set():
            left_s = min(attempt.due_s - self.monotonic(), LONGEST_WAIT_S)
            if attempt.done.wait(max(0.0, left_s)):
                return "" if self._stop.is_set() else attempt.failure
            if self.monotonic() >= attempt.due_s:
                after = f"no frame for {self._limit_s:g} s" if attempt.gave else "no answer"
                return f"{after}; is the camera powered and reachable?"
        return ""


class Samples:
    """What becomes of frames: each, unless the gate holds it back, is a sample of the sink."""

    def __init__(
        self,
        sink: Sink,
        period_s: float,
        wall: Clock,
        counts: dict[str, int],
        gate: MotionGate | None = None,
    ) -> None:
        self.sink, self.period_s, self.wall, self.counts = sink, period_s, wall, counts
        self._gate = gate

    def give(self, attempt: Attempt, frame: Captured) -> None:
        if not attempt.current:
            return
        gate = self._gate
        if gate is None or gate.passes(frame.image["image"], frame.captured_at_s):
            self.sink.captured(frame)
        else:
            self.counts["frames_gated"] += 1


def stored(opens: Callable[[], FrameSource], samples: Samples) -> Callable[[Attempt], None]:
    """Work on a stored source: a frame at every tick."""

    def work(attempt: Attempt) -> None:
        frames = Clocked(
            opens(), samples.period_s, samples.wall, attempt.monotonic, seen=attempt.frame
        )
        if frames.source.at_hand:
            samples.sink.attach(frames)  # no thread stands between frame and section
            return
        while attempt.current:
            attempt.wait(frames.due_s() - attempt.monotonic())
            if attempt.current:
                samples.give(attempt, frames.take())

    return work


def live(
    opens: Callable[[], LiveCamera], scale: Callable[[Image, bool], Image], samples: Samples
) -> Callable[[Attempt], None]:
    """Work on a live camera: every frame is taken as it comes, the one nearest to a tick is used.

    scale: from the camera's picture (and whether it is BGR) to the section's input
    """
    nearest = Nearest[Image](samples.period_s, samples.counts)

    def work(attempt: Attempt) -> None:
        camera = opens()
        try:
            while attempt.current:
                taken_s = camera.grab()
                if not attempt.current:
                    return
                attempt.frame(taken_s)
                age_s = attempt.monotonic() - taken_s
                for sample in nearest.offer(
                    samples.wall() - age_s, age_s, lambda: scale(camera.image(), camera.bgr)
                ):
                    samples.give(
                        attempt, Captured(sample.tick, sample.taken_s, {"image": sample.image})
                    )
        finally:
            camera.close()

    return work
