"""A plan on disk: what is written is read, and what is kept of earlier plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddnn.core.plan import Plan
from ddnn.errors import ConfigError
from ddnn.runtime.plans import PLAN, read_plan
from tests.unit.runtime.plan_files import BUNDLE, ROWS, list_files, open_directory, write_adders


def test_a_plan_that_is_written_is_read(tmp_path: Path) -> None:
    plan = write_adders(tmp_path, 2.0, 3.0)
    assert read_plan(tmp_path, BUNDLE) == plan
    assert len(plan.id) == 8
    directory = open_directory(tmp_path)
    assert directory.read() == plan
    assert directory.find(plan.id) == plan
    assert directory.find("00000000") is None
    for section, number in ((0, 2.0), (1, 3.0), ("head", 1.0)):
        loaded = directory.load(plan.key(section))
        np.testing.assert_array_equal(loaded({"x": ROWS[0]})["y"], ROWS[0] + np.float32(number))
        assert loaded.example()["x"].shape == (4,)


def test_the_id_depends_on_the_contents_only(tmp_path: Path) -> None:
    """Two nodes that plan the same have the same plan, whatever id they were given."""
    ids = [
        write_adders(tmp_path / name, 2.0, id=given).id
        for name, given in (("a", ""), ("b", "1234"))
    ]
    assert ids[0] == ids[1]
    assert write_adders(tmp_path / "c", 3.0).id != ids[0]


def list_named(plan: Plan) -> set[str]:
    """The names of the files of a plan."""
    pieces = [*plan.pieces, *plan.owned.values()]
    return {plan.golden.file, *(piece.file.file for piece in pieces)}


def test_files_of_the_previous_plan_are_kept_and_older_ones_removed(tmp_path: Path) -> None:
    own = {"notes.txt", "eth80.npz", "section.tflite", "eth80-20261129.npz"}
    for name in own:
        (tmp_path / name).write_text("of the user's")
    first, second = write_adders(tmp_path, 2.0), write_adders(tmp_path, 3.0)
    assert list_files(tmp_path) == list_named(first) | list_named(second) | {PLAN, *own}
    third = write_adders(tmp_path, 4.0)
    assert list_files(tmp_path) == list_named(second) | list_named(third) | {PLAN, *own}
    write_adders(tmp_path, 2.0)
    assert read_plan(tmp_path, BUNDLE) == first
    assert list_files(tmp_path) == list_named(first) | list_named(third) | {PLAN, *own}


def test_files_of_an_unreadable_previous_plan_are_removed(tmp_path: Path) -> None:
    first = write_adders(tmp_path, 2.0)
    (tmp_path / PLAN).write_text("{")
    second = write_adders(tmp_path, 3.0)
    assert list_files(tmp_path) == list_named(second) | {PLAN}
    assert not list_named(first) <= list_files(tmp_path)
    open_directory(tmp_path).read()


def test_sections_of_the_previous_plan_are_loaded_after_a_new_one(tmp_path: Path) -> None:
    first = write_adders(tmp_path, 2.0)
    directory = open_directory(tmp_path)
    directory.read()
    second = write_adders(tmp_path, 3.0)
    with pytest.raises(ConfigError, match=f"there is no plan {second.id}"):
        directory.load(second.key(0))  # not read, so not checked
    directory.read()
    for plan, number in ((first, 2.0), (second, 3.0)):
        sum_of = directory.load(plan.key(0))({"x": ROWS[0]})["y"]
        np.testing.assert_array_equal(sum_of, ROWS[0] + np.float32(number))
    assert directory.find(first.id) is None  # it is there no more


def test_a_revision_of_a_plan_has_its_files(tmp_path: Path) -> None:
    plan = write_adders(tmp_path, 2.0)
    directory = open_directory(tmp_path)
    revised = directory.find(f"{plan.id}-3")
    assert revised is not None
    assert (revised.id, revised.pieces) == (f"{plan.id}-3", plan.pieces)
    sum_of = directory.load(revised.key(0))({"x": ROWS[0]})["y"]
    np.testing.assert_array_equal(sum_of, ROWS[0] + np.float32(2.0))
    assert directory.find("0000000000-3") is None
    moved = revised.revise(4, {"elsewhere": tuple(range(len(plan.pieces)))}, {})
    assert (moved.id, list(moved.placement)) == (f"{plan.id}-4", ["elsewhere"])


@pytest.mark.parametrize("section", [1, -1, "tail", "0"])
def test_a_section_that_the_plan_does_not_have_is_refused(
    tmp_path: Path, section: int | str
) -> None:
    plan = write_adders(tmp_path, 2.0)
    directory = open_directory(tmp_path)
    directory.read()
    with pytest.raises(ConfigError, match="has no section"):
        directory.load(plan.key(section))
