"""A watch finds a new plan in its directory once, and reports a bad one once."""

from __future__ import annotations

import shutil
from pathlib import Path

from ddnn.errors import ConfigError
from ddnn.protocol.machine import PlanRead
from ddnn.runtime.plans import PLAN, PlanWatch
from tests.unit.runtime.plan_files import open_directory, write_adders


class Watcher:
    """A watch that checks when the test asks it to, and the plans that it found."""

    def __init__(self, path: Path, current: str) -> None:
        self.found: list[PlanRead] = []
        self.failed: list[ConfigError] = []
        directory = open_directory(path)
        self.watch = PlanWatch(directory, current, self.found.append, self.failed.append)

    def check(self) -> tuple[int, int]:
        """Check twice. Return how many plans were found and refused so far."""
        self.watch.check_once()
        self.watch.check_once()
        return len(self.found), len(self.failed)


def test_a_new_plan_is_found_once(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write_adders(tmp_path, 2.0).id)
    assert watcher.check() == (0, 0)
    second = write_adders(tmp_path, 3.0)
    assert watcher.check() == (1, 0)
    assert watcher.found == [PlanRead(second.id, second)]
    third = write_adders(tmp_path, 4.0)
    assert watcher.check() == (2, 0)
    assert watcher.found[-1] == PlanRead(third.id, third)


def test_the_same_plan_written_again_is_not_new(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write_adders(tmp_path, 2.0).id)
    write_adders(tmp_path, 2.0)
    assert watcher.check() == (0, 0)


def test_a_plan_that_was_written_since_the_present_one_was_read_is_found(tmp_path: Path) -> None:
    """While the node loaded its sections."""
    first = write_adders(tmp_path, 2.0)
    second = write_adders(tmp_path, 3.0)
    watcher = Watcher(tmp_path, first.id)
    assert watcher.check() == (1, 0)
    assert watcher.found[-1].plan == second


def test_a_plan_that_returns_is_new(tmp_path: Path) -> None:
    first = write_adders(tmp_path, 2.0)
    watcher = Watcher(tmp_path, first.id)
    write_adders(tmp_path, 3.0)
    watcher.check()
    write_adders(tmp_path, 2.0)
    assert watcher.check() == (2, 0)
    assert watcher.found[-1].plan == first


def test_a_bad_plan_is_reported_once_and_the_next_good_one_found(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write_adders(tmp_path, 2.0).id)
    (tmp_path / PLAN).write_text("{")
    assert watcher.check() == (0, 1)
    write_adders(tmp_path, 3.0, bundle="00000000")
    assert watcher.check() == (0, 2)
    assert "plan again" in str(watcher.failed[-1])
    third = write_adders(tmp_path, 4.0)
    assert watcher.check() == (1, 2)
    assert watcher.found[-1].id == third.id


def test_a_plan_that_is_taken_away_and_put_back_is_no_error(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write_adders(tmp_path, 2.0).id)
    content = (tmp_path / PLAN).read_bytes()
    (tmp_path / PLAN).unlink()
    assert watcher.check() == (0, 0)
    (tmp_path / PLAN).write_bytes(content)
    assert watcher.check() == (0, 0)
    second = write_adders(tmp_path, 3.0)
    assert watcher.check() == (1, 0)
    assert watcher.found[-1].id == second.id


def test_a_watch_ends_when_it_is_closed(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, write_adders(tmp_path, 2.0).id)
    watcher.watch.start()
    watcher.watch.close()
    assert not watcher.watch._thread.is_alive()


def test_a_plan_is_used_once_all_of_its_files_are_there(tmp_path: Path) -> None:
    """They are copied one after the other, plan.json first."""
    new = tmp_path / "new"
    here = tmp_path / "here"
    for path in (new, here):
        path.mkdir()
    watcher = Watcher(here, write_adders(here, 2.0).id)
    second = write_adders(new, 3.0)
    files = sorted(new.iterdir(), key=lambda file: file.name != PLAN)
    assert files[0].name == PLAN
    for number, file in enumerate(files):
        shutil.copy(file, here)
        found, failed = watcher.check()
        assert found == int(number == len(files) - 1 or found), file
    assert [one.id for one in watcher.found] == [second.id]
    assert failed >= 1
