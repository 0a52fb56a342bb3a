"""Which samples a network has learned from: digests of their views, kept beside its bundle.

With them `ddnn evaluate` leaves out what training has seen, also after pictures were added, moved
or labelled again, so that the splits are drawn otherwise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import ConfigError

LEARNED = "learned.npy"
DIGEST_BYTES = 8
MAX_BYTES = 1 << 30

Images = NDArray[np.uint8]  # [samples, views, height, width, 3]


def write_learned(bundle: Path, *splits: Images) -> None:
    """Keep what a network learns from and what its thresholds are chosen on."""
    views = np.concatenate([digest_views(images).ravel() for images in splits])
    np.save(bundle / LEARNED, np.unique(views[views != 0]), allow_pickle=False)


def find_learned(bundle: Path, images: Images) -> NDArray[np.bool_] | None:
    """Whether each sample was learned from: all of its views that see something; None where the
    bundle does not say. Raises ConfigError where its record cannot be read."""
    file = bundle / LEARNED
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_BYTES} bytes; copy the bundle again")
        known = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{file}: {error}; copy the bundle again, or remove the file") from None
    views = digest_views(images)
    seen: NDArray[np.bool_] = (np.isin(views, known) | (views == 0)).all(1) & views.any(1)
    return seen


def digest_views(images: Images) -> NDArray[np.uint64]:
    """uint64 [samples, views]; 0 for a view that is all black, in which a camera sees nothing."""
    digests = np.zeros(images.shape[:2], np.uint64)
    for place in np.ndindex(*digests.shape):
        view = np.ascontiguousarray(images[place])
        if view.any():
            digest = hashlib.blake2b(view.data, digest_size=DIGEST_BYTES).digest()
            digests[place] = int.from_bytes(digest) or 1
    return digests
