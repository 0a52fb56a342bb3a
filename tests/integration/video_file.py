"""Video files, written with OpenCV."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from tests.parts import need


def need_opencv() -> Any:
    """Import OpenCV; skip the test where it is not installed."""
    need(importlib.util.find_spec("cv2"), "no OpenCV; pip install 'ddnn[camera]'")
    import cv2

    return cv2


def write_video(file: Path, frames: list[np.ndarray], fps: int = 10) -> Path:
    """Write frames, uint8 [height, width, 3] in RGB, as a video. Return its file."""
    cv2 = need_opencv()
    height, width, _ = frames[0].shape
    video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), fps, (width, height))
    for frame in frames:
        video.write(np.ascontiguousarray(frame[:, :, ::-1]))
    video.release()
    assert file.stat().st_size > 1000
    return file
