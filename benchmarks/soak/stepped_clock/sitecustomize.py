"""A wall clock that a test steps: Python imports this file at its start where it finds it.

The file that DDNN_SOAK_CLOCK names holds seconds, which are added to `time.time()`.
"""

import os
import time

_FILE = os.environ.get("DDNN_SOAK_CLOCK")
_READ_EVERY_S = 0.1


def _step_clock(file: str) -> None:
    real_s, monotonic_s = time.time, time.monotonic
    read_at_s, offset_s = float("-inf"), 0.0

    def stepped_s() -> float:
        nonlocal read_at_s, offset_s
        now_s = monotonic_s()
        if now_s - read_at_s >= _READ_EVERY_S:
            read_at_s = now_s
            try:
                with open(file) as lines:
                    offset_s = float(lines.read() or 0)
            except (OSError, ValueError):
                pass  # it is being written
        return real_s() + offset_s

    time.time = stepped_s


if _FILE:
    _step_clock(_FILE)
