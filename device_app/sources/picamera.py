"""Cameras of a Raspberry Pi, read with picamera2."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ddnn.errors import ConfigError, LinkError
from ddnn.runtime.pictures import Image

SIZE = (1280, 960)  # the whole field of view, binned by sensors that can
PLAUSIBLE_S = 10.0  # a stamp that is older belongs to another clock


def read_clocks() -> tuple[float, int]:
    """The monotonic clock in seconds and the clock of the sensor's stamps in nanoseconds."""
    return time.monotonic(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class PiCamera:
    """A camera whose frames are stamped by the sensor.

    `BGR888` is libcamera's name for bytes in the order R, G, B.
    """

    bgr = False

    def __init__(self, number: int, clocks: Callable[[], tuple[float, int]] = read_clocks) -> None:
        from picamera2 import Picamera2

        found = len(Picamera2.global_camera_info())
        if number >= found:
            raise LinkError(
                f"picamera://{number}: {found} camera(s) found; is the cable in? "
                "`rpicam-hello --list-cameras` lists them"
            )
        self._camera = Picamera2(number)
        try:
            # queue=False: a request gets no frame from before it
            self._camera.configure(
                self._camera.create_video_configuration(
                    main={"size": SIZE, "format": "BGR888"}, queue=False
                )
            )
            self._camera.start()
        except BaseException:
            self._camera.close()
            raise
        self._clocks = clocks
        self._image: Image | None = None

    def grab(self) -> float:
        request = self._camera.capture_request()
        try:
            now_s, now_ns = self._clocks()
            stamp_ns = request.get_metadata().get("SensorTimestamp")
            self._image = request.make_array("main")
        finally:
            request.release()  # the camera needs its buffers back
        age_s = (now_ns - stamp_ns) / 1e9 if stamp_ns is not None else 0.0
        return now_s - (age_s if 0 <= age_s <= PLAUSIBLE_S else 0.0)

    def read_image(self) -> Image:
        if self._image is None:
            raise ConfigError("no frame has been grabbed; call grab() first")
        return np.asarray(self._image, np.uint8)

    def close(self) -> None:
        self._camera.stop()
        self._camera.close()
