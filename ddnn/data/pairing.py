"""Which pictures of several cameras are one sample: by name, by time, or by order.

Each function takes the pictures of one class by camera, in natural order, and returns its samples
in order: the picture by camera.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from ddnn.errors import ConfigError
from ddnn.runtime.pictures import split_numbers

PairBy = Literal["name", "time", "order"]
Pictures = Mapping[str, Sequence[Path]]
Samples = list[dict[str, Path]]

LONE_GAP_S = 2.0
"""Gap between pictures where no camera has two of a class."""
_UNIX = re.compile(r"(?<!\d)(\d{10})(\d{3}|\d{6}|\d{9})?(?:\.(\d{1,9}))?(?!\d)")
_DATE = re.compile(
    r"(?<!\d)(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)[-_. T]?"
    r"(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(?:[.,](\d{1,6})|[-_]?(\d{3}|\d{6}))?(?!\d)"
)


def pair(pictures: Pictures, pair_by: PairBy) -> Samples:
    """The samples of one class. Raises ConfigError where the pictures cannot be paired so."""
    match pair_by:
        case "name":
            return pair_by_name(pictures)
        case "time":
            return pair_by_time(pictures)
    return pair_by_order(pictures)


def pair_by_name(pictures: Pictures) -> Samples:
    """Pictures of the same name, without its ending, are one sample."""
    samples: dict[str, dict[str, Path]] = {}
    for camera, files in pictures.items():
        for file in files:
            sample = samples.setdefault(file.stem, {})
            if camera in sample:
                raise ConfigError(
                    f"{file} and {sample[camera].name} are one view of a sample: remove one"
                )
            sample[camera] = file
    return [samples[name] for name in sorted(samples, key=split_numbers)]


def pair_by_order(pictures: Pictures) -> Samples:
    """The n-th pictures of all cameras are one sample."""
    counts = {camera: len(files) for camera, files in pictures.items() if files}
    if len(set(counts.values())) > 1:
        raise ConfigError(
            f"{next(iter(pictures.values()))[0].parent.name}: {counts} pictures by camera cannot "
            "be paired by order; expected the same number: use --pair-by name or time"
        )
    return [
        {camera: files[number] for camera, files in pictures.items() if files}
        for number in range(max(counts.values(), default=0))
    ]


def pair_by_time(pictures: Pictures) -> Samples:
    """Pictures are one sample where the times in their names are close.

    Close is half the median gap between the pictures of the camera that takes most. Raises
    ConfigError where two pictures of a camera have the same time.
    """
    taken = sorted(
        (parse_time(file), camera, file) for camera, files in pictures.items() for file in files
    )
    for (time_s, camera, file), (other_s, other, more) in pairwise(taken):
        if (time_s, camera) == (other_s, other):
            raise ConfigError(
                f"{file} and {more.name} have the same time in their names: use --pair-by name or "
                "order"
            )
    most = max(pictures, key=lambda camera: len(pictures[camera]))
    gaps = np.diff([time_s for time_s, camera, _ in taken if camera == most])
    close_s = float(np.median(gaps)) / 2 if gaps.size else LONE_GAP_S / 2
    samples: Samples = []
    begun_s = -np.inf
    for time_s, camera, file in taken:
        if time_s - begun_s > close_s or camera in samples[-1]:
            samples.append({})
            begun_s = time_s
        samples[-1][camera] = file
    return samples


def parse_time(file: Path) -> float:
    """The time in a file's name, in seconds: Unix time in s, ms, us or ns, or a date and time.

    After the seconds of a date, three or six digits are a fraction; other numbers only after a dot
    or a comma, for "_2" is a counter. Raises ConfigError where there is no time.
    """
    if found := _UNIX.search(file.stem):
        whole, more, fraction = found.groups()
        return float(f"{whole}.{more or fraction or 0}")
    if found := _DATE.search(file.stem):
        *parts, fraction, more = found.groups()
        try:
            date = datetime(*map(int, parts), tzinfo=UTC)  # type: ignore[misc,arg-type]
        except ValueError:
            pass
        else:
            return date.timestamp() + float(f"0.{fraction or more or 0}")
    raise ConfigError(
        f"{file}: no time in its name; expected Unix time such as 1700000000, or a date such as "
        "2024-05-31_17-04-59: use --pair-by name or order"
    )
