"""Data sets in small generated files, and the path of the real photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.parts import need_data
from tests.unit.data.sample_files import (
    make_cifar10,
    make_directory,
    make_eth80,
    make_mvmc,
    make_npz,
)


@pytest.fixture(scope="session")
def eth80_path() -> Path:
    """The real eth80.npz."""
    return need_data("eth80.npz")


@pytest.fixture(scope="session")
def make_spec(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Make the specification of a data set, and its file if it needs one."""
    folder = tmp_path_factory.mktemp("data")
    makers = {
        "eth80": make_eth80,
        "eth80-field": make_eth80,
        "mvmc": make_mvmc,
        "cifar10": make_cifar10,
        "cifar10-tiles": make_cifar10,
        "npz": make_npz,
        "directory": make_directory,
    }

    def make(name: str) -> str:
        if name not in makers:
            return name
        path = (
            folder / name
            if name in ("directory", "cifar10", "cifar10-tiles")
            else folder / f"{name}.npz"
        )
        return f"{name}:{path if path.exists() else makers[name](path)}"

    return make
