"""Data sets as numpy arrays: samples of one object seen by several cameras.

`load("scenes")` renders street scenes, `load("eth80:PATH")` reads photographs; the names are listed
in `ddnn.data.registry`. Importing needs numpy only; functions that read or write image files import
pillow. Nothing is downloaded or unpickled.
"""

from .dataset import ABSENT, Dataset, Split, ViewPool, label_views
from .folders import FolderRequest
from .jpeg import measure_jpeg_bytes
from .pairing import PairBy
from .registry import NAMES, RENDERED, digest_files, load, load_samples, scale_split
from .splits import check_trainable, describe_dataset, relabel

__all__ = [
    "ABSENT",
    "NAMES",
    "RENDERED",
    "Dataset",
    "FolderRequest",
    "PairBy",
    "Split",
    "ViewPool",
    "check_trainable",
    "describe_dataset",
    "digest_files",
    "label_views",
    "load",
    "load_samples",
    "measure_jpeg_bytes",
    "relabel",
    "scale_split",
]
