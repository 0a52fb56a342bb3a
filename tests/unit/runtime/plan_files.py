"""Plans on disk whose sections add a number, so that a test sees which one was loaded."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddnn.core.files import BundleFile
from ddnn.core.plan import ArraySpec, Piece, Plan
from ddnn.core.section import Array, Arrays
from ddnn.errors import ConfigError, SectionError
from ddnn.machines.room import Golden, Room
from ddnn.runtime.bundle import make_file_entry
from ddnn.runtime.plans import PLAN, PlanDirectory, write_plan

BUNDLE = "ab12cd34"
SAMPLES = 3
ROWS = np.arange(SAMPLES * 4, dtype=np.float32).reshape(SAMPLES, 4)
FLOATS, BITS, BYTES = (ArraySpec(kind, (4,)) for kind in ("float32", "bits", "uint8"))


class Adder:
    """A section that adds the number in its file."""

    def __init__(self, file: Path) -> None:
        try:
            self._number = np.float32(float(file.read_text()))
        except ValueError as error:
            raise SectionError(f"{file.name}: {error}") from None

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        return {"y": inputs["x"] + self._number}

    def example(self) -> dict[str, Array]:
        return {}


def check_sums(plan: Plan, golden: Golden) -> None:
    """A room's check of a plan: its detail must fit its pieces."""
    if plan.detail["pieces"] != len(plan.pieces):
        raise ConfigError("the detail does not fit the pieces")


def make_no_combiner(plan: Plan) -> Any:
    raise ConfigError("not used here")


def find_room(name: str) -> Room:
    if name != "sums":
        raise ConfigError(f"a plan of room {name!r} cannot be run")
    return Room(make_no_combiner, check_sums, lambda plan: {}, lambda report: [])


def write_golden(path: Path, name: str, vectors: Mapping[str, Any]) -> BundleFile:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vectors)
    (path / name).write_bytes(buffer.getvalue())
    return make_file_entry(path / name)


def make_vectors(numbers: Mapping[str, float]) -> dict[str, Any]:
    return {
        f"{name}/{way}": rows
        for name, number in numbers.items()
        for way, rows in (("in/x", ROWS), ("out/y", ROWS + np.float32(number)))
    }


def make_plan(
    path: Path,
    *numbers: float,
    bundle: str = BUNDLE,
    vectors: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Plan:
    """Write the files of a plan whose pieces add these numbers, and an owned head that adds 1."""
    path.mkdir(exist_ok=True)
    sections = {**{str(i): number for i, number in enumerate(numbers)}, "head": 1.0}
    pieces = {}
    for name, number in sections.items():
        digest = hashlib.sha256(str(number).encode()).hexdigest()[:8]
        file = path / f"adds{number:g}-{digest}.tflite"
        file.write_text(str(number))
        pieces[name] = Piece(make_file_entry(file), {"x": FLOATS}, {"y": FLOATS})
    golden = write_golden(path, "golden.npz", vectors or make_vectors(sections))
    named = path / f"golden-{golden.sha256[:8]}.npz"
    (path / "golden.npz").rename(named)
    golden = make_file_entry(named)
    plan = {
        "format": 1,
        "room": "sums",
        "bundle": bundle,
        "group": "edge",
        "pieces": tuple(pieces[str(i)] for i in range(len(numbers))),
        "placement": {"worker1": tuple(range(len(numbers)))},
        "golden": golden,
        "owned": {"head": pieces["head"]},
        "detail": {"pieces": len(numbers)},
        **fields,
    }
    return Plan(**plan)


def write_adders(path: Path, *numbers: float, **fields: Any) -> Plan:
    """Write a whole plan whose pieces add these numbers."""
    return write_plan(path, make_plan(path, *numbers, **fields))


def open_directory(path: Path, bundle: str = BUNDLE) -> PlanDirectory:
    return PlanDirectory(path, bundle, Adder, find_room)


def list_files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def edit_document(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of plan.json by `edit`."""
    content = json.loads((path / PLAN).read_bytes())
    edit(content)
    (path / PLAN).write_text(json.dumps(content))


def assert_refused(path: Path, words: str, bundle: str = BUNDLE) -> None:
    """Assert that reading raises one error of one line, and that no plan is found by its id."""
    directory = open_directory(path, bundle)
    with pytest.raises(ConfigError, match=words) as caught:
        directory.read()
    assert "\n" not in str(caught.value)
    assert directory.find("ab12cd34") is None
