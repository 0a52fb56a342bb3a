"""The floors of the dependencies are at or above the versions that fix known vulnerabilities."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
FIXED = {
    "cryptography": (46, 0, 5),
    "flask": (3, 1, 3),
    "jinja2": (3, 1, 6),
    "keras": (3, 13, 2),  # hidden code in .keras (3.9), .h5 (3.11.3); files read while loading
    "pillow": (12, 1, 1),
    "waitress": (3, 0, 1),
    "werkzeug": (3, 1, 6),
}


def read_floors() -> list[tuple[str, tuple[int, ...]]]:
    """Every requirement of the project with its floor; of extras, too."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found = []
    for requirement in (text for texts in lists for text in texts):
        parsed = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement)
        if parsed:
            found.append((parsed[1].lower(), tuple(map(int, parsed[2].split(".")))))
    return found


@pytest.mark.parametrize("name", FIXED)
def test_the_floor_is_a_fixed_version(name: str) -> None:
    floors = [floor for found, floor in read_floors() if found == name]
    assert floors, f"{name} is no requirement any more"
    assert min(floors) >= FIXED[name]
