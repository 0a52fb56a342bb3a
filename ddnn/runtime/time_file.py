"""Keeps the newest site time of a node on disk: a small JSON file, replaced as a whole."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from ddnn.core.site_time import MAX_EPOCH, MAX_TIME_S, SiteTime
from ddnn.runtime.whole_file import write_whole

log = logging.getLogger(__name__)
MAX_BYTES = 4096


class TimeFile:
    """The file of one node."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> SiteTime | None:
        """Read what was written last; None where there is no file, or a damaged one."""
        try:
            with self._path.open("rb") as file:
                time = msgspec.json.decode(file.read(MAX_BYTES), type=SiteTime)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read: %s", self._path, error)
            return None
        if not (0 <= time.epoch <= MAX_EPOCH and 0 <= time.time_s <= MAX_TIME_S):
            log.warning("%s holds no time: %s", self._path, time)
            return None
        return time

    def write(self, time: SiteTime) -> None:
        """Replace the file. Raises OSError where the disk fails.

        It is not flushed to the disk: that may take longer than a machine's thread can wait, and a
        power failure loses the last few seconds only.
        """
        write_whole(self._path, msgspec.json.encode(time), durable=False)
