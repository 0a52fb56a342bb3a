"""Labelling moves files between folders, can be taken back, and survives a crash."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ddnn.data import FolderRequest
from ddnn.data.folders import load_directory_samples
from ddnn.data.recordings import ASIDE, UNLABELLED
from ddnn.data.recordings import labelling as labelling_module
from ddnn.data.recordings.labelling import MOVES, LabelBoard
from ddnn.errors import ConfigError
from tests.unit.data.test_recordings import SESSION, make_jpeg, record

NAMES = [f"{SESSION}-1-{1000 + number}" for number in range(4)]


def list_files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*.jpg")
        if file.is_file()
    }


@pytest.fixture
def board(tmp_path: Path) -> LabelBoard:
    record(tmp_path, {UNLABELLED: [1, 2, 3, 4]})
    return LabelBoard(tmp_path)


def test_a_label_moves_all_views_and_training_finds_them(board: LabelBoard) -> None:
    board.set_label(NAMES[:2], "person")
    board.set_label(NAMES[2:], "nobody")
    found = load_directory_samples(board.path, FolderRequest())
    assert found.classes == ("nobody", "person")
    assert found.samples.labels.tolist() == [0, 0, 1, 1]
    assert (found.samples.view_labels >= 0).all()
    assert not (board.path / "cam1" / UNLABELLED).exists()
    assert LabelBoard(board.path).classes == ["nobody", "person"]


def test_a_view_that_sees_nothing_is_absent_and_stays_so_under_another_label(
    board: LabelBoard,
) -> None:
    board.set_label(NAMES, "person")
    board.toggle_view(NAMES[0], "cam2")
    board.set_label(NAMES[:2], "nobody")
    found = load_directory_samples(board.path, FolderRequest())
    assert found.samples.view_labels.tolist() == [[0, -1], [0, 0], [1, 1], [1, 1]]
    board.toggle_view(NAMES[0], "cam2")
    found = load_directory_samples(board.path, FolderRequest())
    assert found.samples.view_labels.tolist()[0] == [0, 0]


def test_what_is_dropped_is_kept_aside_and_comes_back_with_a_label(board: LabelBoard) -> None:
    before = set(list_files(board.path).values())
    board.set_label(NAMES, "person")
    board.drop(NAMES[:1])
    assert board.find(NAMES[0]).is_dropped
    assert (board.path / ASIDE / "cam1" / "person" / f"{NAMES[0]}.jpg").exists()
    assert set(list_files(board.path).values()) == before
    board.set_label(NAMES[:1], "nobody")
    assert not LabelBoard(board.path).find(NAMES[0]).is_dropped


def test_every_change_can_be_taken_back(board: LabelBoard) -> None:
    states = [list_files(board.path)]
    for change in (
        lambda: board.set_label(NAMES, "person"),
        lambda: board.toggle_view(NAMES[1], "cam1"),
        lambda: board.drop(NAMES[1:3]),
        lambda: board.set_label(NAMES[1:], "nobody"),
    ):
        change()
        states.append(list_files(board.path))
    for state in reversed(states[:-1]):
        assert board.undo()
        assert list_files(board.path) == state
        again = LabelBoard(board.path)
        assert {n: (s.label, s.is_dropped) for n, s in board.samples.items()} == {
            n: (s.label, s.is_dropped) for n, s in again.samples.items()
        }
    assert not board.undo()


def test_a_crash_in_the_middle_is_finished_at_the_next_start(
    board: LabelBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one instant would be two samples of different classes."""
    perform = labelling_module._perform

    def die(path: Path, moves: list) -> None:
        perform(path, moves[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(labelling_module, "_perform", die)
    with pytest.raises(KeyboardInterrupt):
        board.set_label(NAMES, "person")
    monkeypatch.undo()
    again = LabelBoard(board.path)
    assert [sample.label for sample in again.samples.values()] == ["person"] * 4
    assert not (board.path / ASIDE / MOVES).exists()
    assert len(list_files(board.path)) == 8


def test_moves_to_elsewhere_are_refused(board: LabelBoard) -> None:
    for moves in ([("../x", "y")], [("/etc/x", "y")]):
        (board.path / ASIDE).mkdir(exist_ok=True)
        (board.path / ASIDE / MOVES).write_bytes(msgspec.json.encode(moves))
        with pytest.raises(ConfigError, match="outside"):
            LabelBoard(board.path)


def test_folders_of_the_user_are_labelled_too_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pictures"):
        LabelBoard(tmp_path)
    folder = tmp_path / "front" / "cat"
    folder.mkdir(parents=True)
    (folder / "0007.png").touch()
    board = LabelBoard(tmp_path)
    assert board.classes == ["cat"]
    with pytest.raises(ConfigError, match="no sample"):
        board.drop(["0008"])


def test_samples_of_two_classes_with_one_name_are_refused(tmp_path: Path) -> None:
    for camera in ("front", "back"):
        for label in ("cat", "dog"):
            folder = tmp_path / camera / label
            folder.mkdir(parents=True)
            (folder / "0000.jpg").write_bytes(make_jpeg(1))
    with pytest.raises(ConfigError, match=r"0000.jpg and \S+0000.jpg have one name"):
        LabelBoard(tmp_path)


def test_a_picture_that_stands_in_the_way_is_named_and_nothing_moves(board: LabelBoard) -> None:
    """Also where the move was interrupted."""
    name, sample = next(iter(board.samples.items()))
    camera, file = next(iter(sample.views.items()))
    before = {path: path.read_bytes() for path in board.path.rglob("*.jpg")}
    in_the_way = board.path / camera / "other" / file.name
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_bytes(make_jpeg(99))
    with pytest.raises(ConfigError, match="rename one of them"):
        board.set_label([name], "other")
    assert {path: path.read_bytes() for path in before} == before
    in_the_way.unlink()
    LabelBoard(board.path).set_label([name], "other")
    assert in_the_way.exists()


def test_folders_of_the_user_are_split_at_random_after_labelling_too(tmp_path: Path) -> None:
    """Names such as IMG-0001 say nothing of bursts."""
    for label in ("cat", "dog"):
        folder = tmp_path / "front" / label
        folder.mkdir(parents=True)
        for number in range(8):
            (folder / f"IMG-{label}{number}.jpg").write_bytes(make_jpeg(number))
    before = load_directory_samples(tmp_path, FolderRequest())
    LabelBoard(tmp_path)
    after = load_directory_samples(tmp_path, FolderRequest())
    assert before.bursts == after.bursts == ()
