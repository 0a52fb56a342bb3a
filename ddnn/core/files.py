"""A file that a manifest or a plan names."""

from __future__ import annotations

import msgspec


class BundleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a bundle and its checksum."""

    file: str
    sha256: str
