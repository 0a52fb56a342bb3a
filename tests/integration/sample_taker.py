"""A receiver of samples that stands in for the loop of a device."""

from __future__ import annotations

import threading
import time
from typing import Any

from ddnn.protocol.machine import Captured

IN_TIME_S = 20.0
BUSY_S = 2.0  # how long a slow taker blocks


class SampleTaker:
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
