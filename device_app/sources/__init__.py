"""Where frames come from, by URI. README.md has the table of what each kind needs."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from ddnn.errors import ConfigError
from device_app.picture import WHOLE, Image, Roi

_CAMERA_EXTRA = "pip install 'ddnn[camera]'"
_PICAMERA = "apt install python3-picamera2, and a venv made with --system-site-packages"
_PILLOW = (("PIL", _CAMERA_EXTRA),)
_OPENCV = (("cv2", _CAMERA_EXTRA), *_PILLOW)

# What each kind imports, and where that comes from.
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

# Credentials, wherever makers of cameras put them: before the host, in the query, in the path.
_USER = re.compile(r"(?<=://)([^:@]*)(:?)(.*)(?=@)")
_QUERY = re.compile(r"(?<=\?).+")
_NAMED = re.compile(r"((?:pass(?:word|wd)?|pwd|token|key)=)[^&/?]+", re.IGNORECASE)


class Frame(NamedTuple):
    image: Image  # uint8 [height, width, 3]
    label: int | None  # of the object, -1 where this view does not show it, None: not known


class FrameSource(Protocol):
    """Stored frames, each at hand when it is asked for. `at_hand`: without decoding, too."""

    at_hand: bool

    def frame(self, tick: int) -> Frame: ...


class LiveCamera(Protocol):
    """An opened camera. Any call may block, and raise whatever its driver likes."""

    bgr: bool  # the order of the channels

    def grab(self) -> float:
        """Wait for the next frame; the monotonic time at which it was taken."""
        ...

    def image(self) -> Image:
        """The frame grabbed last, uint8 [height, width, 3] in its own size."""
        ...

    def close(self) -> None: ...


class Uri(NamedTuple):
    """A source, taken apart."""

    kind: str
    path: str  # of rtsp the whole URI
    shown: str  # what may be logged: without passwords
    secret: bool  # whether there are any

    @property
    def live(self) -> bool:
        return self.kind in LIVE


def masked(uri: str) -> str:
    """`uri` without its passwords. Rather too much is hidden than too little."""
    if not uri.lower().startswith(("rtsp:", "rtsps:")):
        return uri
    uri = _USER.sub(lambda found: f"{found[1]}:***" if found[2] else "***", uri)
    return _NAMED.sub(r"\1***", _QUERY.sub("***", uri))


def parse_uri(uri: str) -> Uri:
    """ConfigError, without its passwords, where `uri` names no source."""
    kind, _, rest = uri.partition(":")
    kind = kind.lower()
    if kind not in LIBRARIES or not rest:
        # whatever it is, it may hold a password
        raise ConfigError(
            f"--source {masked('rtsp:' + rest)[5:] if '@' in uri else uri!r}: expected KIND:… "
            f"with KIND one of {', '.join(LIBRARIES)}"
        )
    if kind in ("rtsp", "rtsps"):
        shown = masked(uri)
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
    """ConfigError, with the remedy, unless what this kind of source imports is installed (and can
    be `imported`, which takes its time)."""
    for module, remedy in LIBRARIES[kind]:
        try:
            if importlib.util.find_spec(module) is None:
                raise ImportError(f"no module named {module!r}")
            if imported:
                importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"source {kind}: {error}; needed: {remedy}") from None


def open_source(uri: str, view: int, shape: tuple[int, int, int], roi: Roi = WHOLE) -> FrameSource:
    """Stored frames for camera number `view`, as images of `shape`."""
    from device_app.sources import stored

    kind, path, *_ = parse_uri(uri)
    require_libraries(kind)
    match kind:
        case "dataset":
            return stored.DatasetSource(path, view, shape)
        case "frames":
            return stored.FramesSource(Path(path), view, shape)
        case "directory":
            return stored.StreamSource(stored.directory(Path(path)), shape, roi)
        case "video":
            from device_app.sources.opencv import video

            return stored.StreamSource(video(Path(path)), shape, roi, bgr=True)
    raise ConfigError(f"source {kind} is live, not stored")


def open_camera(uri: str, timeout_s: float) -> LiveCamera:
    """A live camera, opened; it gives up waiting after `timeout_s` where its driver lets it."""
    kind, path, *_ = parse_uri(uri)
    require_libraries(kind)
    if kind == "picamera":
        from device_app.sources.picamera import PiCamera

        return PiCamera(int(path))
    from device_app.sources.opencv import OpenCvCamera

    return OpenCvCamera(kind, path, timeout_s)
