"""Recordings on a device: the JPEG of a camera's picture, and a device that does nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import BytesIO

import numpy as np

from ddnn.machines.recorder import Permission, Recorder, Window
from ddnn.runtime.pictures import Image
from device_app.settings import DeviceSettings
from device_app.sources import InputFormat
from device_app.ticks import Tap

log = logging.getLogger(__name__)


def make_recorder(settings: DeviceSettings, bundle: str, input_format: InputFormat) -> Recorder:
    """Make the machine that takes part in recordings, or refuses them; bundle: its id, or ""."""
    return Recorder(
        settings.site,
        settings.node,
        1 / settings.rate_hz,
        Permission(settings.allow_recording == "on", settings.recording_mib << 20),
        bundle=bundle,
        preprocessing=input_format.preprocessing,
        roi=input_format.roi,
    )


def make_tap(wants: Callable[[int], Window | None]) -> Tap:
    """Make the function that encodes the pictures of requested samples, in the camera's thread."""

    def tap(sample: int, picture: Image, bgr: bool) -> bytes | None:
        window = wants(sample)
        if window is None:
            return None
        return encode_jpeg(picture, window.max_side_px, window.quality, bgr=bgr)

    return tap


def encode_jpeg(picture: Image, max_side_px: int, quality: int, *, bgr: bool = False) -> bytes:
    """The picture as JPEG, in its own size unless a side is longer than `max_side_px`."""
    from PIL import Image as Pillow

    image = Pillow.fromarray(np.ascontiguousarray(picture[:, :, ::-1]) if bgr else picture)
    image.thumbnail((max_side_px, max_side_px), Pillow.Resampling.BOX)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
