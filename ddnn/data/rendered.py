"""Rendered splits that are kept on disk, so that each is rendered once and not by every camera."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from ddnn.runtime.file_lock import lock_file
from ddnn.runtime.home import find_home

from . import scenes
from .dataset import Dataset, Split

log = logging.getLogger(__name__)
WAIT_S = 300.0  # for another process that renders the same
FIELDS = ("images", "labels", "view_labels", "groups")


def draw_split_once(part: str, name: str, *, seed: int, samples: int) -> Split:
    """`scenes.draw_split`, or what an earlier call with these arguments and this code kept.

    Where nothing can be kept, such as in a service without a home, the split is rendered.
    """

    def draw() -> Split:
        return scenes.draw_split(part, name, seed=seed, samples=samples)

    key = f"{name}-{part}-seed{seed}-{samples}-{_compute_version()}"
    try:
        directory = find_home() / "rendered" / key
        directory.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(directory.with_name(f"{key}.lock"), WAIT_S):
            if directory.exists():
                try:
                    return _read(directory, part)
                except (OSError, ValueError, EOFError) as error:
                    log.warning("%s cannot be read and is rendered again: %s", directory, error)
                    shutil.rmtree(directory)
            return _keep(directory, draw)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: the user has no home
        log.info("%s is rendered again at the next start: %s", key, error)
        return draw()


def _keep(directory: Path, draw: Callable[[], Split]) -> Split:
    split = draw()
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        for field in FIELDS:
            with (whole / f"{field}.npy").open("wb") as file:
                np.save(file, getattr(split, field))
                file.flush()
                os.fsync(file.fileno())  # a power cut leaves no names without their content
        whole.rename(directory)
    return split


def _read(directory: Path, part: str) -> Split:
    """The images are mapped, so that the cameras of a machine share their memory; writes are
    private."""
    images, *others = (
        np.load(directory / f"{field}.npy", mmap_mode="c" if field == "images" else None)
        for field in FIELDS
    )
    return Split(part, images, *others)


@cache
def _compute_version() -> str:
    """A digest of the code that renders."""
    digest = hashlib.sha256()
    for file in sorted(Path(scenes.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def load_rendered(name: str, *, seed: int = 0, samples: tuple[int, int, int]) -> Dataset:
    """The three splits of scenes, scenes5 or scenes8, of these sizes."""
    train, validation, test = (
        draw_split_once(part, name, seed=seed, samples=count)
        for part, count in zip(scenes.SPLITS, samples, strict=True)
    )
    return Dataset(name, scenes.list_classes(name), train, validation, test)
