"""The directory that pictures are recorded into: whole files only, whatever happens."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from pathlib import Path

from ddnn.errors import ConfigError
from ddnn.machines.picture_collector import Picture
from ddnn.protocol.record_messages import RecordState
from ddnn.runtime.new_directory import convert_write_errors
from ddnn.runtime.whole_file import PART, write_whole

from .description import (
    Burst,
    Camera,
    Description,
    Session,
    read_description,
    require_label,
    write_description,
)
from .quality import PictureQuality, measure_quality
from .thinning import find_duplicates

RESERVE_BYTES = 32 << 20  # of the file system, that stay free


class RecordingStore:
    """Writes the pictures of one session. `keep` may be called in another thread than the rest.

    Raises ConfigError where the directory cannot be used. Where the process is killed, pictures
    that `keep` has returned for are on disk, and no other file is there but `.*.part` files, which
    the next start removes.
    """

    def __init__(self, path: Path, session: str, site: str, version: str) -> None:
        self.path = path
        with convert_write_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        found = read_description(path)
        if found is None and any(not child.name.startswith(".") for child in path.iterdir()):
            raise ConfigError(
                f"--out {path} holds files, but no dataset.json; expected an empty directory, or "
                "one that `ddnn collect` wrote, to which it adds a session"
            )
        self.description = found or Description()
        for other in self.description.sessions:
            if other.site != site:
                raise ConfigError(
                    f"--out {path} holds pictures of the site {other.site}, whose cameras are "
                    f"others than those of {site}; give another directory"
                )
        for left in path.rglob(f".*{PART}"):  # by a process that was killed
            left.unlink(missing_ok=True)
        for camera in self._list_cameras():  # of such a process, too
            self.description.cameras.setdefault(camera, Camera(node=camera))
        self._labels: dict[int, str] = {}
        self._session = Session(id=session, site=site, version=version)
        self._hashes: dict[int, dict[str, dict[str, int]]] = {}  # burst, sample, camera
        self._pictures: dict[int, Counter[str]] = {}  # burst, camera

    def begin_burst(
        self, number: int, label: str, bounds_s: tuple[float, float], every_s: float
    ) -> None:
        """Write down a burst before its first picture comes."""
        label = require_label(label)
        self._labels[number] = label
        from_s, until_s = bounds_s
        burst = Burst(number=number, label=label, from_s=from_s, until_s=until_s, every_s=every_s)
        self._session.bursts.append(burst)
        if self._session not in self.description.sessions:
            self.description.sessions.append(self._session)
        if label not in self.description.classes:
            self.description.classes.append(label)
        write_description(self.path, self.description)

    def keep(self, picture: Picture) -> PictureQuality | None:
        """Write a picture; returns its quality. None, and nothing is written: it is broken.

        Raises OSError where it cannot be written.
        """
        try:
            quality = measure_quality(picture.jpeg)
        except ConfigError:
            return None
        label = self._labels[picture.burst]
        if shutil.disk_usage(self.path).free < RESERVE_BYTES + len(picture.jpeg):
            raise OSError(errno.ENOSPC, f"under {RESERVE_BYTES >> 20} MiB are free", str(self.path))
        folder = self.path / picture.device / label
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{picture.session}-{picture.burst}-{picture.sample}"
        write_whole(folder / f"{name}.jpg", picture.jpeg)
        hashes = self._hashes.setdefault(picture.burst, {}).setdefault(name, {})
        hashes[picture.device] = quality.hash
        self._pictures.setdefault(picture.burst, Counter())[picture.device] += 1
        camera = self.description.cameras.setdefault(picture.device, Camera(node=picture.device))
        camera.width, camera.height = quality.width, quality.height
        return quality

    def count_pictures(self, burst: int) -> Counter[str]:
        """The pictures of a burst by camera."""
        return self._pictures.get(burst, Counter())

    def finish(self, states: dict[str, RecordState], distinct_bits: int) -> int:
        """Remove near-duplicates, and write down what was recorded; returns how many were removed.

        states: the last report of each device; distinct_bits: -1 removes none
        """
        removed = 0
        for burst in self._session.bursts:
            samples = self._hashes.get(burst.number, {})
            ordered = {name: samples[name] for name in sorted(samples, key=_read_number)}
            found = find_duplicates(ordered, distinct_bits) if distinct_bits >= 0 else []
            for name in found:
                for camera in ordered[name]:
                    file = self.path / camera / burst.label / f"{name}.jpg"
                    file.unlink(missing_ok=True)
                    self._pictures[burst.number][camera] -= 1
            burst.thinned = len(found)
            burst.pictures = dict(sorted(self.count_pictures(burst.number).items()))
            removed += len(found)
        for node, state in states.items():
            if node in self.description.cameras:
                entry = self.description.cameras[node]
                entry.bundle, entry.roi = state.bundle, state.roi
                entry.preprocessing = state.preprocessing
        write_description(self.path, self.description)
        return removed

    def _list_cameras(self) -> list[str]:
        """The folders of cameras."""
        found = [e.name for e in os.scandir(self.path) if e.is_dir() and e.name[:1] != "."]
        return sorted(found)

    def count_classes(self) -> dict[str, Counter[str]]:
        """Pictures on disk by class and camera, of all sessions."""
        counts: dict[str, Counter[str]] = {}
        for camera in self._list_cameras():
            for label in os.scandir(self.path / camera):
                if label.is_dir() and not label.name.startswith("."):
                    pictures = sum(entry.name.endswith(".jpg") for entry in os.scandir(label))
                    counts.setdefault(label.name, Counter())[camera] += pictures
        return counts


def _read_number(name: str) -> int:
    return int(name.rpartition("-")[2])
