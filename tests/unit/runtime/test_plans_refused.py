"""Documents, golden vectors and section files of a plan that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddnn.core.plan import ArraySpec, Piece
from ddnn.errors import ConfigError
from ddnn.runtime.bundle import make_file_entry
from ddnn.runtime.plans import PLAN, read_plan
from tests.unit.runtime.plan_files import (
    BITS,
    BUNDLE,
    BYTES,
    FLOATS,
    ROWS,
    SAMPLES,
    assert_refused,
    edit_document,
    make_plan,
    make_vectors,
    open_directory,
    write_adders,
)


def test_a_directory_without_a_plan_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert_refused(path, "is not a plan: No such file .*`ddnn plan`")


def test_a_plan_for_another_bundle_is_refused(tmp_path: Path) -> None:
    write_adders(tmp_path, 2.0, bundle="00000000")
    assert_refused(tmp_path, "is for bundle 00000000, not for ab12cd34; plan again")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda plan: plan.update(extra=1), "unknown field `extra`"),
        (lambda plan: plan.update(format=2), "format"),
        (lambda plan: plan.update(room="shares"), "room 'shares' cannot be run"),
        (lambda plan: plan.update(detail={"pieces": 9}), "does not fit the pieces"),
        (lambda plan: plan.update(placement={"worker1": []}), "every piece needs a node"),
        (lambda plan: plan.update(placement={"../x": [0]}), "not an id"),
        (lambda plan: plan["golden"].update(file="../golden.npz"), "is not a plain file name"),
        (lambda plan: plan["golden"].update(file="none.npz"), "No such file"),
        (lambda plan: plan["golden"].update(sha256="00"), "has sha256"),
        (lambda plan: plan["pieces"][0]["inputs"]["x"].update(shape=[2**24, 2]), "more than"),
        (lambda plan: plan["pieces"][0]["inputs"]["x"].update(type="object"), "type"),
    ],
)
def test_a_wrong_document_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    write_adders(tmp_path, 2.0)
    edit_document(tmp_path, edit)
    assert_refused(tmp_path, words)


def test_a_document_truncated_at_any_byte_is_refused(tmp_path: Path) -> None:
    write_adders(tmp_path, 2.0)
    whole = (tmp_path / PLAN).read_bytes().rstrip()
    for end in range(len(whole)):
        (tmp_path / PLAN).write_bytes(whole[:end])
        with pytest.raises(ConfigError):
            read_plan(tmp_path, BUNDLE)


@pytest.mark.parametrize("section", ["0", "head"])
@pytest.mark.parametrize("way", ["in/x", "out/y"])
@pytest.mark.parametrize(
    "rows",
    [
        None,
        ROWS[:, :3],
        ROWS[..., np.newaxis],
        ROWS.astype(np.float64),
        ROWS.astype(np.uint8),
        np.zeros((), np.float32),
        np.full((SAMPLES, 4), "text"),
    ],
    ids=["none", "shorter", "deeper", "float64", "uint8", "scalar", "text"],
)
def test_golden_arrays_that_differ_from_the_declared_ones_are_refused(
    tmp_path: Path, section: str, way: str, rows: Any
) -> None:
    vectors = make_vectors({"0": 2.0, "head": 1.0})
    del vectors[f"{section}/{way}"]
    if rows is not None:
        vectors[f"{section}/{way}"] = rows
    write_adders(tmp_path, 2.0, vectors=vectors)
    assert_refused(tmp_path, f"section {section} has no golden {way[-1]} of float32")


@pytest.mark.parametrize(("spec", "fits"), [(BITS, True), (BYTES, False)])
def test_bits_are_float32_in_memory(tmp_path: Path, spec: ArraySpec, fits: bool) -> None:
    plan = make_plan(tmp_path, 2.0)
    piece = Piece(plan.pieces[0].file, {"x": spec}, {"y": FLOATS})
    written = write_adders(tmp_path, 2.0, pieces=(piece,))
    if fits:
        assert open_directory(tmp_path).read() == written
    else:
        assert_refused(tmp_path, "no golden x of uint8")


def test_golden_arrays_that_are_not_declared_are_refused(tmp_path: Path) -> None:
    """A section is run with all its golden inputs: one too many would be no task's."""
    write_adders(
        tmp_path, 2.0, vectors={**make_vectors({"0": 2.0, "head": 1.0}), "0/in/more": ROWS}
    )
    assert_refused(tmp_path, "golden 0/in/more is no array that its section declares")


def test_a_damaged_golden_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / write_adders(tmp_path, 2.0).golden.file
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert_refused(tmp_path, f"{file.name} has sha256")
    edit_document(tmp_path, lambda plan: plan["golden"].update(sha256=make_file_entry(file).sha256))
    assert_refused(tmp_path, "unreadable golden vectors")


@pytest.mark.parametrize(
    ("content", "words"),
    [("3", "has sha256"), (None, "No such file")],
)
def test_a_damaged_section_is_not_loaded(tmp_path: Path, content: str | None, words: str) -> None:
    plan = write_adders(tmp_path, 2.0)
    directory = open_directory(tmp_path)
    directory.read()
    file = tmp_path / plan.pieces[0].file.file
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=words):
        directory.load(plan.key(0))
    directory.load(plan.key("head"))  # the others are


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("3", "section 0 does not reproduce its golden output y"),
        ("text", "section 0: adds2-"),
    ],
)
def test_a_section_that_computes_other_outputs_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    """Its checksum is right, so the golden vectors must find it."""
    file = tmp_path / write_adders(tmp_path, 2.0).pieces[0].file.file
    file.write_text(content)
    sha256 = make_file_entry(file).sha256
    edit_document(tmp_path, lambda plan: plan["pieces"][0]["file"].update(sha256=sha256))
    directory = open_directory(tmp_path)
    plan = directory.read()
    with pytest.raises(ConfigError, match=words):
        directory.load(plan.key(0))
