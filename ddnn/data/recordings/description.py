"""dataset.json: what a directory of recorded pictures holds, and how it was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi
from ddnn.errors import ConfigError
from ddnn.runtime.new_directory import convert_write_errors
from ddnn.runtime.whole_file import write_whole

DESCRIPTION = "dataset.json"
ASIDE = ".aside"
UNLABELLED = "unlabelled"
"""The class of pictures that nobody has labelled yet; training passes it over."""
MAX_LABEL_CHARS = 64
MAX_BYTES = 16 << 20

Share = Annotated[float, msgspec.Meta(ge=0)]


class Burst(msgspec.Struct, kw_only=True):
    """A run of pictures with one label: ticks from `from_s` to `until_s` of the site's time.

    pictures: how many each camera has in it. A camera that is not named, or has fewer than the
    others, was away: its views are absent.
    """

    number: int
    label: str
    from_s: float
    until_s: float
    every_s: float
    pictures: dict[str, int] = {}
    thinned: int = 0  # samples that were removed because they are alike


class Session(msgspec.Struct, kw_only=True):
    """One run of `ddnn collect`."""

    id: str
    site: str
    version: str  # of ddnn
    bursts: list[Burst] = []


class Camera(msgspec.Struct, kw_only=True):
    """A folder of pictures, and the node that took them.

    width, height: of the newest picture. bundle, preprocessing, roi: what the node's section saw of
    these pictures; without a bundle they are the defaults.
    """

    node: str
    width: int = 0
    height: int = 0
    bundle: str = ""
    preprocessing: Preprocessing | None = None
    roi: Roi = WHOLE


class Description(msgspec.Struct, kw_only=True):
    """The content of dataset.json. licence: left to the user, kept as it is."""

    format: Literal[1] = 1
    classes: list[str] = []
    licence: str = ""
    cameras: dict[str, Camera] = {}
    sessions: list[Session] = []


_DECODER = msgspec.json.Decoder(Description)


def read_description(path: Path) -> Description | None:
    """The description of the directory; None where it has none. ConfigError for a broken one."""
    file = path / DESCRIPTION
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{file}: over {MAX_BYTES} bytes; it is none of ddnn's")
        return _DECODER.decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ConfigError) as error:
        raise ConfigError(
            f"{file}: {error}; mend it, or remove it: then each picture counts for itself"
        ) from None


def write_description(path: Path, description: Description) -> None:
    """Write dataset.json, whole or not at all. Raises ConfigError where it cannot be written."""
    data = msgspec.json.format(msgspec.json.encode(description), indent=1)
    with convert_write_errors(path):
        write_whole(path / DESCRIPTION, data + b"\n")


def find_burst(sample: str) -> str:
    """The session and burst in the name of a sample, by which splits are made."""
    return sample.rpartition("-")[0] or sample


def find_session(sample: str) -> str:
    """The session in the name of a sample."""
    return find_burst(find_burst(sample))


def require_label(label: str) -> str:
    """The label unchanged, or ConfigError where it cannot be the name of a folder."""
    label = label.strip()
    if (
        not 0 < len(label) <= MAX_LABEL_CHARS
        or label.startswith((".", "-"))
        or "/" in label
        or not label.isprintable()
    ):
        raise ConfigError(
            f"label {label!r}: expected 1 to {MAX_LABEL_CHARS} printable characters without '/', "
            "not beginning with '.' or '-', such as person"
        )
    return label
