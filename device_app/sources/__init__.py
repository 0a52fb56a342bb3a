"""Sources of frames by URI. README.md lists what each kind needs."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi
from ddnn.core.text import mask_passwords
from ddnn.errors import ConfigError, DdnnError
from ddnn.runtime.pictures import Image

_CAMERA_EXTRA = "pip install 'ddnn[camera]'"
_PICAMERA = "apt install python3-picamera2, and a venv made with --system-site-packages"
_PILLOW = (("PIL", _CAMERA_EXTRA),)
_OPENCV = (("cv2", _CAMERA_EXTRA), *_PILLOW)

# The modules that each kind imports, and how to install them.
LIBRARIES: dict[str, tuple[tuple[str, str], ...]] = {
    "picamera": (("picamera2", _PICAMERA), *_PILLOW),
    "v4l2": _OPENCV,
    "rtsp": _OPENCV,
    "rtsps": _OPENCV,
    "video": _OPENCV,
    "directory": _PILLOW,
    "dataset": (),
    "frames": (),
}
LIVE = ("picamera", "v4l2", "rtsp", "rtsps")
PREPARED = ("dataset", "frames")  # images of the section's own size


class Frame(NamedTuple):
    """A stored frame."""

    image: Image  # uint8 [height, width, 3]
    label: int | None  # of the object, -1: not visible in this view, None: not known
    picture: Image | None = None  # from which the image was made, where it is another one
    bgr: bool = False  # the order of the picture's channels


class UnreadableFrameError(DdnnError):
    """The frame of a tick cannot be read; those of other ticks can."""


class FrameSource(Protocol):
    """Stored frames. preloaded: whether frames are read without decoding, and none is unreadable.

    The frame of a tick is number (tick modulo their count), so that sources of several cameras show
    the same instant.
    """

    preloaded: bool

    def read_frame(self, tick: int) -> Frame:
        """The frame of the tick.

        Raises UnreadableFrameError where it cannot be read, ConfigError where none can be.
        """
        ...


class LiveCamera(Protocol):
    """An open camera. Any call may block and may raise any exception of its driver."""

    bgr: bool  # the order of the channels

    def grab(self) -> float:
        """Wait for the next frame; returns the monotonic time at which it was taken."""
        ...

    def read_image(self) -> Image:
        """The frame grabbed last: uint8 [height, width, 3] in the camera's size."""
        ...

    def close(self) -> None: ...


class Uri(NamedTuple):
    """The parts of a source's URI."""

    kind: str
    path: str  # for rtsp the whole URI
    shown: str  # the URI without passwords, which may be logged
    secret: bool  # whether the URI has passwords

    @property
    def live(self) -> bool:
        """Whether frames come from a camera at its own rate."""
        return self.kind in LIVE


def parse_uri(uri: str) -> Uri:
    """Parse the URI of a source.

    Raises ConfigError, which does not show passwords, for anything else.
    """
    kind, _, rest = uri.partition(":")
    kind = kind.lower()
    if kind not in LIBRARIES or not rest:
        # The text may hold a password.
        received = mask_passwords(rest) if "@" in uri else repr(uri)
        raise ConfigError(
            f"--source {received}: expected KIND:… with KIND one of {', '.join(LIBRARIES)}"
        )
    if kind in ("rtsp", "rtsps"):
        shown = mask_passwords(uri)
        try:
            parts = urlsplit(uri)
            complete = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            complete = False
        if not complete or any(ord(char) <= 32 for char in uri):
            raise ConfigError(
                f"--source {shown!r}: expected {kind}://[USER:PASSWORD@]HOST[:PORT]/…"
            )
        return Uri(kind, uri, shown, shown != uri)
    if kind == "picamera" and re.fullmatch(r"//[0-9]{1,2}", rest) is None:
        raise ConfigError(f"--source {uri!r}: expected picamera://0, or the camera's number")
    if kind == "v4l2" and re.fullmatch(r"(//)?/[^/].*", rest) is None:
        raise ConfigError(f"--source {uri!r}: expected v4l2:///dev/video0, or another device")
    if kind in LIVE:
        rest = rest.removeprefix("//")
    return Uri(kind, rest, uri, False)


def require_libraries(kind: str, *, imported: bool = False) -> None:
    """Raise ConfigError, with the remedy, where a module of this kind of source is missing.

    imported: also import the modules, which may take seconds
    """
    for module, remedy in LIBRARIES[kind]:
        try:
            if importlib.util.find_spec(module) is None:
                raise ImportError(f"no module named {module!r}")
            if imported:
                importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"source {kind}: {error}; needed: {remedy}") from None


class InputFormat(NamedTuple):
    """What a bundle says about the pictures of one of its devices.

    roi:     region of interest of the device's camera
    classes: names of the labels; None: those of the source
    cameras: folder by device, in the order of views, in data sets of folders
    pair_by: how their pictures are paired
    """

    preprocessing: Preprocessing = Preprocessing()
    roi: Roi = WHOLE
    classes: tuple[str, ...] | None = None
    cameras: Mapping[str, str] = {}
    pair_by: Literal["name", "time", "order"] = "name"


DEFAULT_FORMAT = InputFormat()


def open_source(
    uri: str, view: int, shape: tuple[int, int, int], input_format: InputFormat = DEFAULT_FORMAT
) -> FrameSource:
    """Open stored frames for camera number `view`, as images of `shape`.

    Raises ConfigError for a live source and for files that cannot be used.
    """
    from device_app.sources import stored

    kind, path, *_ = parse_uri(uri)
    require_libraries(kind)
    match kind:
        case "dataset":
            return stored.DatasetSource(path, view, shape, input_format)
        case "frames":
            return stored.FramesSource(Path(path), view, shape)
        case "directory":
            return stored.DirectorySource(Path(path), shape, input_format)
        case "video":
            from device_app.sources.opencv import VideoSource

            return VideoSource(Path(path), shape, input_format)
    raise ConfigError(f"source {kind} is live; expected a stored one")


def read_first_frame(source: FrameSource) -> Frame:
    """The first frame that can be read. Raises ConfigError where none can be."""
    tick = 0
    while True:
        try:
            return source.read_frame(tick)
        except UnreadableFrameError:
            tick += 1


def open_camera(uri: str, timeout_s: float) -> LiveCamera:
    """Open a live camera, which waits at most `timeout_s` if its driver supports timeouts.

    Raises LinkError or exceptions of its driver where it does not open.
    """
    kind, path, *_ = parse_uri(uri)
    require_libraries(kind)
    if kind == "picamera":
        from device_app.sources.picamera import PiCamera

        return PiCamera(int(path))
    from device_app.sources.opencv import OpenCvCamera

    return OpenCvCamera(kind, path, timeout_s)
