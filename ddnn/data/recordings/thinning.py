"""Near-duplicates: samples in which nothing has changed for any camera."""

from __future__ import annotations

from collections.abc import Mapping

Hashes = Mapping[str, int]  # by camera


def find_duplicates(samples: Mapping[str, Hashes], bits: int) -> list[str]:
    """The samples that are like the last one before them that is no duplicate.

    samples: in order, the difference hash of each camera's picture. Two samples are alike where the
    same cameras see both, and no hash differs in more than `bits` bits.
    """
    duplicates: list[str] = []
    last: Hashes | None = None
    for name, hashes in samples.items():
        if last is not None and _are_alike(last, hashes, bits):
            duplicates.append(name)
        else:
            last = hashes
    return duplicates


def _are_alike(a: Hashes, b: Hashes, bits: int) -> bool:
    return a.keys() == b.keys() and all((a[camera] ^ b[camera]).bit_count() <= bits for camera in a)
