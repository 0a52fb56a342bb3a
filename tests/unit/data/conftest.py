"""Data sets in small made files, and where the real photographs are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parts import need_data
from tests.unit.data.made_files import make_directory, make_eth80, make_mvmc, make_npz


@pytest.fixture(scope="session")
def eth80_path() -> Path:
    """The real eth80.npz."""
    return need_data("eth80.npz")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The specification of a data set, its file made if it needs one."""
    folder = tmp_path_factory.mktemp("data")
    makers = {
        "eth80": make_eth80,
        "eth80-field": make_eth80,
        "mvmc": make_mvmc,
        "npz": make_npz,
        "directory": make_directory,
    }

    def specification(name: str) -> str:
        if name not in makers:
            return name
        path = folder / name if name == "directory" else folder / f"{name}.npz"
        return f"{name}:{path if path.exists() else makers[name](path)}"

    return specification
