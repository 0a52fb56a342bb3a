"""Sources read with OpenCV: USB cameras (V4L2), network cameras (RTSP by FFmpeg), video files."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np

from ddnn.core.clock_offset import ClockOffset
from ddnn.errors import ConfigError, LinkError
from ddnn.runtime.pictures import Image, make_input
from device_app.sources import Frame, InputFormat, UnreadableFrameError

MIN_GAP_S = 0.004  # shortest gap between frames, for streams whose stamps do not advance
MAX_FORWARD = 300  # frames of a video; beyond that the file is searched
LIVE_SHARE = 0.75  # of the gap between two stamps must pass between frames that are live


def _import_cv2() -> Any:
    """Import OpenCV without its messages, which may show a URI with its password."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # TCP loses no parts of frames and needs one port
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    import cv2

    return cv2


class OpenCvCamera:
    """A camera read with OpenCV.

    A frame's time is its arrival less its delay by the stream's stamps, because after a stall the
    network delivers old frames in a burst.
    """

    bgr = True

    def __init__(self, kind: str, path: str, timeout_s: float) -> None:
        cv2 = _import_cv2()
        wait_ms = round(timeout_s * 1000)
        if kind == "v4l2":
            _check_device(Path(path))
            os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(max(1, int(timeout_s))))
            self._capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
        else:
            self._capture = cv2.VideoCapture(
                path,
                cv2.CAP_FFMPEG,
                [
                    cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                    wait_ms,
                    cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                    wait_ms,
                    cv2.CAP_PROP_N_THREADS,
                    1,  # each further thread delays the decoder by a frame
                ],
            )
        if not self._capture.isOpened():
            self._capture.release()
            raise LinkError(
                f"{path} is no camera that gives pictures; `ls /dev/video*` lists the cameras"
                if kind == "v4l2"
                else "the stream cannot be opened; are address, path, user and password right?"
            )
        self._position = cv2.CAP_PROP_POS_MSEC
        self._ages, self._stamp_s = ClockOffset(timeout_s), -1.0
        self._catch_up(timeout_s)

    def _catch_up(self, limit_s: float) -> None:
        """Skip frames that were buffered while the stream was opened.

        They come faster than they were taken, and before the first frame their delay is unknown.
        """
        first_s = arrived_s = time.monotonic()
        while arrived_s - first_s < limit_s:
            before_s, before_stamp_s = arrived_s, self._stamp_s
            self.grab()
            arrived_s = time.monotonic()
            gap_s = max(self._stamp_s - before_stamp_s, MIN_GAP_S)
            if before_stamp_s >= 0 and arrived_s - before_s >= LIVE_SHARE * gap_s:
                return

    def grab(self) -> float:
        if not self._capture.grab():
            raise LinkError("the stream has ended")
        now_s = time.monotonic()
        stamp_s, before_s = self._capture.get(self._position) / 1000, self._stamp_s
        self._stamp_s = stamp_s
        return now_s - (self._ages.age_s(stamp_s, now_s) if stamp_s > before_s else 0.0)

    def read_image(self) -> Image:
        ok, image = self._capture.retrieve()
        if not ok:
            raise LinkError("the stream's frame cannot be decoded")
        return np.asarray(image, np.uint8)

    def close(self) -> None:
        self._capture.release()


def _check_device(path: Path) -> None:
    """Raise ConfigError or LinkError with the reason why a device node cannot be opened.

    OpenCV reports only that it cannot.
    """
    try:
        if not stat.S_ISCHR(path.stat().st_mode):
            raise ConfigError(f"{path} is no device; `ls /dev/video*` lists the cameras")
        if not os.access(path, os.R_OK | os.W_OK):
            raise ConfigError(f"{path}: not permitted; add this user to the group `video`")
    except OSError as error:
        raise LinkError(f"{path}: {error.strerror}; is the camera plugged in?") from None


class VideoSource:
    """Frames of a video file, without labels; the frame of a tick is tick modulo their count."""

    preloaded = False

    def __init__(self, path: Path, shape: tuple[int, int, int], input_format: InputFormat) -> None:
        if not path.is_file():
            raise ConfigError(f"video:{path}: no such file")
        self._path, self._shape, self._format = path, shape, input_format
        self._cv2 = _import_cv2()
        self._failures = 0  # in succession
        self._open()
        self._count = max(0, int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)))
        self._has_index = self._count > 0
        self._count = self._count or self._count_frames()
        if not self._count:
            raise ConfigError(f"video:{path}: no frame can be decoded from it")

    def _open(self) -> None:
        """Begin at the first frame."""
        self._capture = self._cv2.VideoCapture(str(self._path))
        self._next = 0  # number of the frame that is decoded next

    def _count_frames(self) -> int:
        """Decode the whole file, whose header does not say how many frames it has."""
        count = 0
        while self._capture.grab():
            count += 1
        self._open()
        return count

    def _seek(self, number: int) -> None:
        """Go to a frame: forward by decoding, which is exact, over short distances. A stream
        without an index, such as raw MJPEG or H.264, is decoded from its beginning."""
        if self._has_index and not 0 <= number - self._next <= MAX_FORWARD:
            self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, number)
            self._next = number
        elif number < self._next:
            self._open()
        while self._next < number and self._capture.grab():
            self._next += 1

    def read_frame(self, tick: int) -> Frame:
        number = tick % self._count
        self._seek(number)
        ok, image = self._capture.read()
        self._next += 1
        if not ok:
            self._next = self._count + 1  # so that the next one is sought
            self._failures += 1
            if self._failures >= self._count:
                raise ConfigError(f"video:{self._path}: no frame can be decoded from it")
            raise UnreadableFrameError(f"video:{self._path}: frame {number} cannot be decoded")
        self._failures = 0
        input_format = self._format
        return Frame(
            make_input(image, self._shape, input_format.preprocessing, input_format.roi, bgr=True),
            None,
            np.asarray(image, np.uint8),
            bgr=True,
        )
