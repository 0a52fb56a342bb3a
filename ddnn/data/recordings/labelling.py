"""Labels recorded pictures: files move between the folders of classes, and can move back.

A sample is labelled by moving its pictures to another class's folder, dropped by moving them to
`.aside`; a view that sees nothing is moved there, too. Nothing is deleted.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ddnn.errors import ConfigError
from ddnn.runtime.new_directory import convert_write_errors
from ddnn.runtime.pictures import find_skip_reason, split_numbers
from ddnn.runtime.whole_file import write_whole

from .description import (
    ASIDE,
    DESCRIPTION,
    UNLABELLED,
    Description,
    find_burst,
    read_description,
    require_label,
    write_description,
)

MAX_UNDO = 1000
MOVES = "moves.json"

Moves = list[tuple[str, str]]  # paths from the directory: from, to


@dataclass(slots=True)
class LabelledSample:
    """A sample as it is on disk.

    label:   its class
    views:   by camera, the file of its picture
    aside:   by camera, the file of a picture that was taken out
    """

    name: str
    label: str
    views: dict[str, Path] = field(default_factory=dict)
    aside: dict[str, Path] = field(default_factory=dict)

    @property
    def is_dropped(self) -> bool:
        return not self.views

    @property
    def burst(self) -> str:
        return find_burst(self.name)


class LabelBoard:
    """The samples of a directory and what a person does with them. One thread may use it.

    Raises ConfigError where the directory has no pictures or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise ConfigError(f"{path}: no such directory; give the --out of `ddnn collect`")
        self.description = read_description(path) or Description()
        self._finish_moves()
        self.samples = self._read_samples()
        if not self.samples:
            raise ConfigError(
                f"{path}: no pictures; expected <camera>/<class>/<sample>.jpg in it, as "
                "`ddnn collect` writes them"
            )
        if not (path / DESCRIPTION).exists():
            write_description(path, self.description)
        self._undo: deque[Moves] = deque(maxlen=MAX_UNDO)

    # ------------------------------------------------------------------- reading

    @property
    def cameras(self) -> list[str]:
        found = {camera for s in self.samples.values() for camera in (*s.views, *s.aside)}
        return sorted(found, key=split_numbers)

    @property
    def classes(self) -> list[str]:
        """The classes, with or without pictures, but not `unlabelled`."""
        found = {sample.label for sample in self.samples.values()} | {*self.description.classes}
        return sorted(found - {UNLABELLED})

    @property
    def undoable(self) -> int:
        return len(self._undo)

    def find(self, name: str) -> LabelledSample:
        """A sample by its name; ConfigError where there is none."""
        try:
            return self.samples[name]
        except KeyError:
            raise ConfigError(f"no sample {name!r}; load the page again") from None

    def _read_samples(self) -> dict[str, LabelledSample]:
        found: dict[str, LabelledSample] = {}
        for root, is_aside in ((self.path, False), (self.path / ASIDE, True)):
            for file in sorted(root.glob("*/*/*"), key=lambda file: split_numbers(file.name)):
                camera, label, _ = file.relative_to(root).parts
                if camera.startswith(".") or find_skip_reason(file):
                    continue
                sample = found.setdefault(file.stem, LabelledSample(file.stem, label))
                views = sample.aside if is_aside else sample.views
                if camera in views or (sample.views and not is_aside and sample.label != label):
                    other = views.get(camera) or next(iter(sample.views.values()))
                    raise ConfigError(
                        f"{file} and {other} have one name, and it names a sample of one class: "
                        "give each sample a name of its own"
                    )
                views[camera] = file
        return dict(sorted(found.items(), key=lambda item: split_numbers(item[0])))

    # ------------------------------------------------------------------- changing

    def set_label(self, names: Iterable[str], label: str) -> None:
        """Give samples a class; those that were dropped come back."""
        label = require_label(label)
        moves: Moves = []
        for name in names:
            sample = self.find(name)
            for camera, file in sample.views.items():
                moves.append(self._plan(file, camera, label, aside=False))
            for camera, file in sample.aside.items():  # a view that sees nothing stays aside
                moves.append(self._plan(file, camera, label, aside=not sample.is_dropped))
        self._do(moves)
        if label not in (*self.description.classes, UNLABELLED):
            self.description.classes.append(label)
            write_description(self.path, self.description)

    def drop(self, names: Iterable[str]) -> None:
        """Take samples out."""
        moves: Moves = []
        for name in names:
            sample = self.find(name)
            moves += [
                self._plan(file, camera, sample.label, aside=True)
                for camera, file in sample.views.items()
            ]
        self._do(moves)

    def toggle_view(self, name: str, camera: str) -> None:
        """Take out the view of one camera, which sees nothing; or take it back."""
        sample = self.find(name)
        if camera in sample.views:
            moves = [self._plan(sample.views[camera], camera, sample.label, aside=True)]
        elif camera in sample.aside:
            moves = [self._plan(sample.aside[camera], camera, sample.label, aside=False)]
        else:
            raise ConfigError(f"{name} has no picture of {camera}")
        self._do(moves)

    def undo(self) -> bool:
        """Take back the last change; False where there is none."""
        if not self._undo:
            return False
        self._move([(to, origin) for origin, to in reversed(self._undo[-1])])
        self._undo.pop()
        return True

    def _plan(self, file: Path, camera: str, label: str, *, aside: bool) -> tuple[str, str]:
        root = Path(ASIDE) if aside else Path()
        return str(file.relative_to(self.path)), str(root / camera / label / file.name)

    def _do(self, moves: Moves) -> None:
        moves = [(origin, to) for origin, to in moves if origin != to]
        if moves:
            self._move(moves)
            self._undo.append(moves)

    def _move(self, moves: Moves) -> None:
        """Move all files or none; what a crash interrupts is finished at the next start."""
        aside = self.path / ASIDE
        _require_free(self.path, moves)
        with convert_write_errors(self.path):
            aside.mkdir(exist_ok=True)
            write_whole(aside / MOVES, msgspec.json.encode(moves))
            try:
                _perform(self.path, moves)
            except OSError:
                back = [(to, origin) for origin, to in reversed(moves)]
                _perform(self.path, [pair for pair in back if not (self.path / pair[1]).exists()])
                (aside / MOVES).unlink()
                raise
            (aside / MOVES).unlink()
        self._take_over(moves)

    def _finish_moves(self) -> None:
        """Do what a crash has interrupted."""
        file = self.path / ASIDE / MOVES
        if not file.exists():
            return
        try:
            moves = msgspec.json.decode(file.read_bytes(), type=Moves)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{file}: {error}; remove it") from None
        if any(".." in Path(name).parts or name[:1] == "/" for pair in moves for name in pair):
            raise ConfigError(f"{file} names files outside of {self.path}; remove it")
        moves = [(origin, to) for origin, to in moves if (self.path / origin).exists()]
        _require_free(self.path, moves)
        with convert_write_errors(self.path):
            _perform(self.path, moves)
            file.unlink()

    def _take_over(self, moves: Moves) -> None:
        """Bring the samples of these moves to what is on disk now."""
        for origin, to in moves:
            sample = self.samples[Path(to).stem]
            camera, label = Path(to).parts[-3:-1]
            was_aside, is_aside = origin.startswith(ASIDE + "/"), to.startswith(ASIDE + "/")
            (sample.aside if was_aside else sample.views).pop(camera, None)
            (sample.aside if is_aside else sample.views)[camera] = self.path / to
            sample.label = label


def _require_free(path: Path, moves: Sequence[tuple[str, str]]) -> None:
    """Raise ConfigError where a picture stands where another one is to go."""
    for origin, to in moves:
        if (path / to).exists():
            raise ConfigError(
                f"{path / origin} is to become {to}, where another picture is: rename one of them"
            )


def _perform(path: Path, moves: Sequence[tuple[str, str]]) -> None:
    """Move what is not moved yet; a file that is there already is never replaced."""
    for origin, to in moves:
        source, target = path / origin, path / to
        if not source.exists():
            continue  # moved before a crash
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise FileExistsError(17, "a picture of that name is there already", str(target))
        source.rename(target)
        with contextlib.suppress(OSError):  # not empty
            source.parent.rmdir()
