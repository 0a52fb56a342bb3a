"""Fixtures of several training tests."""

from __future__ import annotations

import pytest

from ddnn.data import Dataset, load


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return load("scenes", samples=(60, 20, 20))
