"""Recordings: folders of pictures that `ddnn collect` wrote, and their dataset.json.

A directory::

    PATH/dataset.json                                     classes, cameras, sessions and bursts
    PATH/<camera>/<class>/<session>-<burst>-<sample>.jpg  the pictures
    PATH/.aside/                                          what `ddnn label` took out

It is the layout of `directory:PATH` (ddnn.data.folders), which is read everywhere. Pictures of one
burst are alike; splits keep a burst together.
"""

from .description import (
    ASIDE,
    DESCRIPTION,
    UNLABELLED,
    Burst,
    Camera,
    Description,
    Session,
    find_burst,
    find_session,
    read_description,
    require_label,
    write_description,
)
from .quality import PictureQuality, measure_quality
from .store import RecordingStore
from .thinning import find_duplicates

__all__ = [
    "ASIDE",
    "DESCRIPTION",
    "UNLABELLED",
    "Burst",
    "Camera",
    "Description",
    "PictureQuality",
    "RecordingStore",
    "Session",
    "find_burst",
    "find_duplicates",
    "find_session",
    "measure_quality",
    "read_description",
    "require_label",
    "write_description",
]
