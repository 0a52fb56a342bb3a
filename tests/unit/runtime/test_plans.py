"""A plan on disk: what is written, what is kept of earlier ones, what is refused, what is found."""

from __future__ import annotations

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
from ddnn.protocol.machine import PlanRead
from ddnn.runtime.bundle import make_file_entry
from ddnn.runtime.plans import PLAN, PlanDirectory, PlanWatch, read_plan, write_plan

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
    """As a room does: what the plan's own detail and the golden arrays have to do together."""
    if plan.detail["pieces"] != len(plan.pieces):
        raise ConfigError("the detail does not fit the pieces")


def refuse(plan: Plan) -> Any:
    raise ConfigError("not used here")


def find_room(name: str) -> Room:
    if name != "sums":
        raise ConfigError(f"a plan of room {name!r} cannot be run")
    return Room(refuse, check_sums, lambda plan: {}, lambda report: [])


def write_golden(path: Path, name: str, vectors: Mapping[str, Any]) -> BundleFile:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vectors)
    (path / name).write_bytes(buffer.getvalue())
    return make_file_entry(path / name)


def vectors_of(numbers: Mapping[str, float]) -> dict[str, Any]:
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
        file = path / f"adds{number:g}.tflite"
        file.write_text(str(number))
        pieces[name] = Piece(make_file_entry(file), {"x": FLOATS}, {"y": FLOATS})
    key = "-".join(f"{number:g}" for number in numbers)
    golden = write_golden(path, f"golden-{key}.npz", vectors or vectors_of(sections))
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


def write(path: Path, *numbers: float, **fields: Any) -> Plan:
    return write_plan(path, make_plan(path, *numbers, **fields))


def open_directory(path: Path, bundle: str = BUNDLE) -> PlanDirectory:
    return PlanDirectory(path, bundle, Adder, find_room)


def list_files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit plan.json."""
    content = json.loads((path / PLAN).read_bytes())
    edit(content)
    (path / PLAN).write_text(json.dumps(content))


def assert_refused(path: Path, words: str, bundle: str = BUNDLE) -> None:
    """One error in one line; and no plan for who asks for one by its id."""
    directory = open_directory(path, bundle)
    with pytest.raises(ConfigError, match=words) as caught:
        directory.read()
    assert "\n" not in str(caught.value)
    assert directory.find("ab12cd34") is None


# --------------------------------------------------------------------- written, read


def test_a_plan_that_is_written_is_read(tmp_path: Path) -> None:
    plan = write(tmp_path, 2.0, 3.0)
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


def test_the_id_is_of_the_contents(tmp_path: Path) -> None:
    """Two nodes that plan the same have the same plan, whatever id they were given."""
    ids = [write(tmp_path / name, 2.0, id=given).id for name, given in (("a", ""), ("b", "1234"))]
    assert ids[0] == ids[1]
    assert write(tmp_path / "c", 3.0).id != ids[0]


def test_files_of_the_plan_before_are_kept_and_older_ones_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of the user's")
    first = write(tmp_path, 2.0)
    write(tmp_path, 3.0)
    before = {"adds2.tflite", "golden-2.npz"}
    now = {"adds1.tflite", "adds3.tflite", "golden-3.npz", PLAN, "notes.txt"}
    assert list_files(tmp_path) == before | now
    write(tmp_path, 4.0)
    assert list_files(tmp_path) == (now - {"golden-2.npz"}) | {"adds4.tflite", "golden-4.npz"}
    write(tmp_path, 2.0)
    assert read_plan(tmp_path, BUNDLE) == first
    assert list_files(tmp_path) >= {"adds2.tflite", "adds4.tflite"}


def test_a_plan_before_that_cannot_be_read_keeps_nothing(tmp_path: Path) -> None:
    write(tmp_path, 2.0)
    (tmp_path / PLAN).write_text("{")
    write(tmp_path, 3.0)
    assert "adds2.tflite" not in list_files(tmp_path)
    open_directory(tmp_path).read()


def test_sections_of_the_plan_before_are_loaded_while_another_is_there(tmp_path: Path) -> None:
    first = write(tmp_path, 2.0)
    directory = open_directory(tmp_path)
    directory.read()
    second = write(tmp_path, 3.0)
    with pytest.raises(ConfigError, match=f"there is no plan {second.id}"):
        directory.load(second.key(0))  # not read, so not checked
    directory.read()
    for plan, number in ((first, 2.0), (second, 3.0)):
        sum_of = directory.load(plan.key(0))({"x": ROWS[0]})["y"]
        np.testing.assert_array_equal(sum_of, ROWS[0] + np.float32(number))
    assert directory.find(first.id) is None  # it is there no more


@pytest.mark.parametrize("section", [1, -1, "tail", "0"])
def test_a_section_that_the_plan_does_not_have(tmp_path: Path, section: int | str) -> None:
    plan = write(tmp_path, 2.0)
    directory = open_directory(tmp_path)
    directory.read()
    with pytest.raises(ConfigError, match="has no section"):
        directory.load(plan.key(section))


# --------------------------------------------------------------------------- refused


def test_no_plan_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        assert_refused(path, "is not a plan: No such file .*`ddnn plan`")


def test_a_plan_for_another_bundle(tmp_path: Path) -> None:
    write(tmp_path, 2.0, bundle="00000000")
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
def test_a_document_that_is_wrong(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    write(tmp_path, 2.0)
    change(tmp_path, edit)
    assert_refused(tmp_path, words)


def test_a_document_cut_at_any_byte(tmp_path: Path) -> None:
    write(tmp_path, 2.0)
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
def test_golden_arrays_are_as_declared(tmp_path: Path, section: str, way: str, rows: Any) -> None:
    vectors = vectors_of({"0": 2.0, "head": 1.0})
    del vectors[f"{section}/{way}"]
    if rows is not None:
        vectors[f"{section}/{way}"] = rows
    write(tmp_path, 2.0, vectors=vectors)
    assert_refused(tmp_path, f"section {section} has no golden {way[-1]} of float32")


@pytest.mark.parametrize(("spec", "fits"), [(BITS, True), (BYTES, False)])
def test_bits_are_float32_in_memory(tmp_path: Path, spec: ArraySpec, fits: bool) -> None:
    plan = make_plan(tmp_path, 2.0)
    piece = Piece(plan.pieces[0].file, {"x": spec}, {"y": FLOATS})
    written = write(tmp_path, 2.0, pieces=(piece,))
    if fits:
        assert open_directory(tmp_path).read() == written
    else:
        assert_refused(tmp_path, "no golden x of uint8")


def test_golden_arrays_that_are_not_declared(tmp_path: Path) -> None:
    """A section is run with all its golden inputs: one too many would be no task's."""
    write(tmp_path, 2.0, vectors={**vectors_of({"0": 2.0, "head": 1.0}), "0/in/more": ROWS})
    assert_refused(tmp_path, "golden 0/in/more is no array that its section declares")


def test_a_damaged_golden_file(tmp_path: Path) -> None:
    write(tmp_path, 2.0)
    file = tmp_path / "golden-2.npz"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert_refused(tmp_path, "golden-2.npz has sha256")
    change(tmp_path, lambda plan: plan["golden"].update(sha256=make_file_entry(file).sha256))
    assert_refused(tmp_path, "unreadable golden vectors")


@pytest.mark.parametrize(
    ("content", "words"),
    [("3", "has sha256"), (None, "No such file")],
)
def test_a_damaged_section_is_not_loaded(tmp_path: Path, content: str | None, words: str) -> None:
    plan = write(tmp_path, 2.0)
    directory = open_directory(tmp_path)
    directory.read()
    file = tmp_path / "adds2.tflite"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=words):
        directory.load(plan.key(0))
    directory.load(plan.key("head"))  # the others are


@pytest.mark.parametrize(
    ("content", "words"),
    [("3", "section 0 does not reproduce its golden output y"), ("text", "section 0: adds2")],
)
def test_a_section_that_computes_something_else(tmp_path: Path, content: str, words: str) -> None:
    """Its checksum is right, so the golden vectors must find it."""
    write(tmp_path, 2.0)
    file = tmp_path / "adds2.tflite"
    file.write_text(content)
    sha256 = make_file_entry(file).sha256
    change(tmp_path, lambda plan: plan["pieces"][0]["file"].update(sha256=sha256))
    directory = open_directory(tmp_path)
    plan = directory.read()
    with pytest.raises(ConfigError, match=words):
        directory.load(plan.key(0))


# ----------------------------------------------------------------------------- found


class Watcher:
    """A watch that looks when it is asked to, and what it has found."""

    def __init__(self, path: Path, current: str) -> None:
        self.found: list[PlanRead] = []
        self.failed: list[ConfigError] = []
        directory = open_directory(path)
        self.watch = PlanWatch(directory, current, self.found.append, self.failed.append)

    def look(self) -> tuple[int, int]:
        """How many plans were found and refused, looking twice."""
        self.watch.check_once()
        self.watch.check_once()
        return len(self.found), len(self.failed)


def test_a_new_plan_is_found_once(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write(tmp_path, 2.0).id)
    assert watcher.look() == (0, 0)
    second = write(tmp_path, 3.0)
    assert watcher.look() == (1, 0)
    assert watcher.found == [PlanRead(second.id, second)]
    third = write(tmp_path, 4.0)
    assert watcher.look() == (2, 0)
    assert watcher.found[-1] == PlanRead(third.id, third)


def test_the_same_plan_written_again_is_none(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write(tmp_path, 2.0).id)
    write(tmp_path, 2.0)
    assert watcher.look() == (0, 0)


def test_a_plan_that_returns_is_new(tmp_path: Path) -> None:
    first = write(tmp_path, 2.0)
    watcher = Watcher(tmp_path, first.id)
    write(tmp_path, 3.0)
    watcher.look()
    write(tmp_path, 2.0)
    assert watcher.look() == (2, 0)
    assert watcher.found[-1].plan == first


def test_a_bad_plan_is_reported_once_and_the_next_good_one_found(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write(tmp_path, 2.0).id)
    (tmp_path / PLAN).write_text("{")
    assert watcher.look() == (0, 1)
    write(tmp_path, 3.0, bundle="00000000")
    assert watcher.look() == (0, 2)
    assert "plan again" in str(watcher.failed[-1])
    third = write(tmp_path, 4.0)
    assert watcher.look() == (1, 2)
    assert watcher.found[-1].id == third.id


def test_a_plan_that_is_taken_away_and_put_back_is_no_error(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write(tmp_path, 2.0).id)
    content = (tmp_path / PLAN).read_bytes()
    (tmp_path / PLAN).unlink()
    assert watcher.look() == (0, 0)
    (tmp_path / PLAN).write_bytes(content)
    assert watcher.look() == (0, 0)
    second = write(tmp_path, 3.0)
    assert watcher.look() == (1, 0)
    assert watcher.found[-1].id == second.id


def test_a_watch_ends_when_it_is_closed(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write(tmp_path, 2.0).id)
    watcher.watch.start()
    watcher.watch.close()
    assert not watcher.watch._thread.is_alive()
