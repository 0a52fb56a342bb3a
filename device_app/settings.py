"""The keys of device_app."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.core.preprocessing import parse_roi
from ddnn.errors import ConfigError
from ddnn.protocol.access import Role
from ddnn.runtime.settings import NodeSettings, read_secret
from device_app.sources import PREPARED, Uri, parse_uri

KINDS = (
    "picamera://0, v4l2:///dev/video0, rtsp://HOST/…, video:FILE, directory:DIR, "
    "dataset:NAME[:PATH], frames:DIR"
)


class DeviceSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of device_app."""

    source: Annotated[str, msgspec.Meta(description=f"Frames: {KINDS}.")] = ""
    source_file: Annotated[
        str,
        msgspec.Meta(description="File whose first line is the source: for URIs with a password."),
    ] = ""
    lend: Annotated[
        Literal["off", "on"],
        msgspec.Meta(
            description="on or off: lend computing power to the layer that an edge shares, and to "
            "trainings (ddnn pipeline train) where the extra train is installed. Without a source "
            "this node is a worker, with a name that is not in the bundle; without a bundle too "
            "it only trains."
        ),
    ] = "off"
    bundle: Annotated[
        str,
        msgspec.Meta(
            description="Directory of the bundle to run; with a source [bundle], without one only "
            "to lend computing power to its layers. With --allow-recording on it is not assumed: "
            "without --bundle the node only records."
        ),
    ] = ""
    plan: Annotated[
        str, msgspec.Meta(description="Directory that `ddnn plan` wrote [BUNDLE/deployment].")
    ] = ""
    train_model: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="A network of your own that central nodes may train here; several times "
            "for several. Those that ddnn knows may always be trained.",
            extra={"metavar": "MODULE:FUNCTION", "names_code": True},
        ),
    ] = ()
    train_threads: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=1024)] | None,
        msgspec.Meta(description="Threads of TensorFlow in trainings [one for each core]."),
    ] = None
    slow: Annotated[
        float,
        msgspec.Meta(
            description="For experiments: trainings take so many times longer here than they need, "
            "which emulates a slower device.",
            ge=1,
            le=1000,
        ),
    ] = 1.0
    allow_recording: Annotated[
        Literal["off", "on"],
        msgspec.Meta(
            description="on or off: send pictures to `ddnn collect` when it asks for them. Only "
            "then do pictures leave this machine."
        ),
    ] = "off"
    recording_mib: Annotated[
        int,
        msgspec.Meta(
            description="Memory for recorded pictures that the collector does not have yet.",
            ge=1,
            le=4096,
        ),
    ] = 32
    rate_hz: Annotated[float, msgspec.Meta(description="Samples per second.", gt=0, le=1000)] = 10.0
    view: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None,
        msgspec.Meta(description="Which view of the source; by default the node's."),
    ] = None
    roi: Annotated[
        str,
        msgspec.Meta(
            description="Region of interest: x,y,w,h as fractions of the frame, from its upper "
            "left; by default the one that the bundle was trained with."
        ),
    ] = ""
    motion: Annotated[
        float,
        msgspec.Meta(
            description="Take samples only while at least this share of the pixels of the "
            "section's input (0.02 is one in fifty) differs in brightness by more than a tenth "
            "from the average of the last second. 0: always.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    motion_hold_s: Annotated[
        float, msgspec.Meta(description="How long samples continue after motion.", ge=0)
    ] = 2.0
    camera_timeout_s: Annotated[
        float,
        msgspec.Meta(
            description="A camera without a frame for this long is opened again.", ge=0.1, le=3600
        ),
    ] = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.source and self.source_file) or not (self.has_source or self.lend == "on"):
            raise ConfigError(
                f"give either --source or --source-file, or --lend on, or both; a source is one of "
                f"{KINDS}"
            )
        if not self.bundle and self.has_source and self.allow_recording == "off":
            msgspec.structs.force_setattr(self, "bundle", "bundle")  # as the other programs'
        if self.allow_recording == "on" and not self.has_source:
            raise ConfigError("--allow-recording on without a camera; expected --source, too")
        if self.plan and not self.bundle:
            raise ConfigError("--plan without --bundle; give the bundle that the plan is for")
        if self.lend == "off" and (self.train_model or self.train_threads or self.slow != 1):
            raise ConfigError(
                "--train-model, --train-threads or --slow without --lend on; expected both"
            )
        if self.plan and self.lend == "off":
            raise ConfigError("--plan without --lend on; expected both")
        parse_roi(self.roi)
        if self.source:
            self._check_source(parse_uri(self.source))

    def __repr__(self) -> str:  # without the source, which may hold a password
        return f"DeviceSettings({self.site}/{self.node})"

    @property
    def has_source(self) -> bool:
        """Whether this node has a camera or stored frames."""
        return bool(self.source or self.source_file)

    @property
    def needed_roles(self) -> tuple[Role, ...]:
        camera: tuple[Role, ...] = ("device",) if self.has_source else ()
        if self.lend == "off":
            return camera
        return (*camera, "worker" if self.bundle else "trainer")

    def _check_source(self, source: Uri) -> None:
        if source.kind in PREPARED and (self.roi or self.motion):
            raise ConfigError(
                f"--roi and --motion with {source.kind}, whose images are what the section sees; "
                "expected a camera, a video or a directory"
            )

    @property
    def uri(self) -> str:
        """The source, which may hold a password: log `parse_uri(…).shown` instead."""
        if self.source:
            return self.source
        uri = read_secret(self.source_file)
        try:
            source = parse_uri(uri)
        except ConfigError:  # its message shows the line, which may be a password
            raise ConfigError(
                f"--source-file {self.source_file}: its first line is no source; expected "
                f"one of {KINDS}"
            ) from None
        self._check_source(source)
        return uri
