"""What becomes of a source's pictures, and a first one to try it with."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Literal, NamedTuple, cast

from ddnn.core.preprocessing import parse_roi
from ddnn.errors import DdnnError, LinkError
from ddnn.exits.manifest import Manifest
from ddnn.exits.trial import try_sample
from ddnn.runtime.bundle import Bundle
from ddnn.runtime.pictures import make_input
from device_app.settings import DeviceSettings
from device_app.sources import (
    DEFAULT_FORMAT,
    InputFormat,
    open_camera,
    open_source,
    parse_uri,
    read_first_frame,
)

log = logging.getLogger(__name__)

SHAPE = (32, 32, 3)  # of inputs where no bundle says it: the motion gate's pictures
STORED_LIMIT_S = 120.0  # limit for rendering a data set


class Target(NamedTuple):
    """What becomes of a source's pictures: inputs of `shape`; view: which one of the source."""

    shape: tuple[int, int, int]
    input_format: InputFormat
    view: int


def find_target(settings: DeviceSettings, manifest: Manifest | None) -> Target:
    """What the bundle says about this device's pictures; defaults without a bundle."""
    if manifest is None:
        input_format = DEFAULT_FORMAT._replace(roi=parse_roi(settings.roi))
        return Target(SHAPE, input_format, settings.view or 0)
    devices = manifest.hierarchy.devices
    view = devices.index(settings.node) if settings.view is None else settings.view
    return Target(manifest.image_shape, make_input_format(settings, manifest), view)


def make_input_format(settings: DeviceSettings, manifest: Manifest) -> InputFormat:
    """What the bundle says about this device's pictures; --roi takes the place of its region."""
    trained = manifest.preprocessing.find_roi(settings.node)
    roi = parse_roi(settings.roi) if settings.roi else trained
    if roi != trained:
        log.warning(
            "--roi %s: the bundle was trained with %s for %s; right only if this camera's picture "
            "shows there what the pictures of the training showed",
            settings.roi,
            ",".join(f"{part:g}" for part in trained),
            settings.node,
        )
    return InputFormat(
        manifest.preprocessing,
        roi,
        manifest.classes,
        manifest.cameras,
        cast("Literal['name', 'time', 'order']", manifest.training.get("pair_by", "name")),
    )


def take_first_frame(settings: DeviceSettings, target: Target, bundle: Bundle | None) -> str:
    """Open the source, take one frame and, with a bundle, answer it; returns a line on the frame.

    Raises a DdnnError where that fails or takes too long.
    """
    uri = settings.uri
    source = parse_uri(uri)
    limit_s = 3 * settings.camera_timeout_s if source.live else STORED_LIMIT_S
    done: queue.SimpleQueue[tuple[int, ...] | DdnnError] = queue.SimpleQueue()

    def take() -> None:
        try:
            if not source.live:
                opened = open_source(uri, target.view, target.shape, target.input_format)
                image = read_first_frame(opened).image
                if bundle is not None:
                    try_sample(bundle.manifest, bundle.sections, {settings.node: image})
                done.put(image.shape)
                return
            camera = open_camera(uri, settings.camera_timeout_s)
            try:
                camera.grab()
                image = camera.read_image()
                if bundle is not None:
                    input_format = target.input_format
                    made = make_input(
                        image,
                        target.shape,
                        input_format.preprocessing,
                        input_format.roi,
                        bgr=camera.bgr,
                    )
                    try_sample(bundle.manifest, bundle.sections, {settings.node: made})
                done.put(image.shape)
            finally:
                camera.close()
        except Exception as error:  # drivers and decoders raise exceptions of any type
            text = f"{error if isinstance(error, (DdnnError, OSError)) else repr(error)}"
            kind = type(error) if isinstance(error, DdnnError) else LinkError
            done.put(kind(f"source {source.shown}: {text.replace(uri, source.shown)}"))

    threading.Thread(target=take, name="camera", daemon=True).start()
    try:
        taken = done.get(timeout=limit_s)
    except queue.Empty:
        raise LinkError(f"source {source.shown}: no frame within {limit_s:g} s") from None
    if isinstance(taken, DdnnError):
        raise taken
    return f"source {source.shown}: a frame of {taken[1]}x{taken[0]} pixels"
