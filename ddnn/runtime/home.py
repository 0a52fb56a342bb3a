"""The directory in which ddnn keeps what is made once: bundles, plans, frames, rendered data."""

from __future__ import annotations

import os
from pathlib import Path


def find_home() -> Path:
    """$DDNN_HOME, or ddnn in the user's data directory."""
    if given := os.environ.get("DDNN_HOME"):
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "ddnn"
