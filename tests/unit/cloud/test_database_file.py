"""SQLite's file is deleted or replaced under a running store: nothing is confirmed that is lost."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_app.store import Store
from ddnn.errors import LinkError
from tests.answer_builder import make_answer


def delete(path: Path) -> None:
    for file in path.parent.glob("cloud.db*"):
        file.unlink()


def delete_main_file_only(path: Path) -> None:
    path.unlink()


def replace_by_another(path: Path) -> None:
    other = Store(f"sqlite:///{path.parent}/other.db")
    other.save([("home", make_answer(77))])
    other.close()
    delete(path)
    (path.parent / "other.db").rename(path)


@pytest.mark.parametrize("lose", [delete, delete_main_file_only, replace_by_another])
def test_what_is_confirmed_is_in_the_file_at_the_path(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    path = tmp_path / "cloud.db"
    store = Store(f"sqlite:///{path}")
    store.save([("home", make_answer(1))])
    lose(path)
    with pytest.raises(LinkError, match="deleted or replaced"):
        store.save([("home", make_answer(2))])
    store.save([("home", make_answer(2))])
    assert [record.answer.sample for record in store.list_newest(9)][:1] == [2]
    again = Store(f"sqlite:///{path}")  # as another process finds it
    samples = {record.answer.sample for record in again.list_newest(9)}
    assert samples == ({2, 77} if lose is replace_by_another else {2})
    again.close()
    store.close()


def test_a_file_that_is_deleted_within_a_transaction_confirms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    store = Store(f"sqlite:///{path}")

    def notice() -> None:
        """Another thread, such as the page's, notices it first."""
        delete(path)
        with pytest.raises(LinkError, match="deleted or replaced"):
            store.list_newest(1)

    def clock() -> float:
        """Called by `save` within its transaction."""
        thread = threading.Thread(target=notice)
        thread.start()
        thread.join()
        return 1.0

    store.clock = clock
    with pytest.raises(LinkError):
        store.save([("home", make_answer(2))])
    assert store.list_newest(9) == []
    store.close()


def test_a_folder_that_is_away_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    store = Store(f"sqlite:///{folder}/cloud.db")
    store.save([("home", make_answer(1))])
    folder.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(LinkError):
            store.list_newest(1)
    (tmp_path / "elsewhere").rename(folder)
    assert [record.answer.sample for record in store.list_newest(9)] == [1]
    store.close()


def test_a_log_that_is_deleted_alone_loses_nothing(tmp_path: Path) -> None:
    """SQLite goes on with the one that it has open, which nobody finds after the process."""
    path = tmp_path / "cloud.db"
    store = Store(f"sqlite:///{path}")
    store.save([("home", make_answer(1))])
    confirmed = [1]
    for sample in (2, 3, 4):
        if sample == 3:
            Path(f"{path}-wal").unlink()
        try:
            store.save([("home", make_answer(sample))])
            confirmed.append(sample)
        except LinkError:
            store.save([("home", make_answer(sample))])
            confirmed.append(sample)
    for copied in path.parent.glob("cloud.db*"):  # what is there where the process is killed now
        shutil.copy(copied, tmp_path / copied.name.replace("cloud", "killed"))
    again = Store(f"sqlite:///{tmp_path}/killed.db")
    assert {record.answer.sample for record in again.list_newest(9)} == {*confirmed}
    again.close()
    store.close()
