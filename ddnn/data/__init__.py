"""Data sets as numpy arrays: samples of one object seen by several cameras.

`load("scenes")` renders street scenes, `load("eth80:PATH")` reads photographs; the names are listed
in `ddnn.data.registry`. Importing needs numpy only; functions that read or write image files import
pillow. Nothing is downloaded or unpickled.
"""

from .dataset import ABSENT, Dataset, Split, ViewPool, label_views
from .jpeg import measure_jpeg_bytes
from .registry import NAMES, load, load_samples

__all__ = [
    "ABSENT",
    "NAMES",
    "Dataset",
    "Split",
    "ViewPool",
    "label_views",
    "load",
    "load_samples",
    "measure_jpeg_bytes",
]
