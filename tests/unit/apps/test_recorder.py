"""The recorder confirms exactly the answers that are stored, and no failure stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_app import recorder as module
from cloud_app.recorder import Recorder
from cloud_app.store import Store
from ddnn.errors import LinkError
from ddnn.protocol.machine import Save, Saved
from ddnn.protocol.messages import Answer
from tests.answer_builder import make_answer

IN_TIME_S = 60.0
Pair = tuple[str, Answer]


def make_pair(sample: int) -> Pair:
    return "home", make_answer(sample)


class FailingStore:
    """A store whose failures the test chooses."""

    def __init__(self) -> None:
        self.saved: list[list[int]] = []
        self.events: list[str] = []
        self.fail_save: Callable[[list[int]], Exception | None] = lambda samples: None
        self.fail_event: Exception | None = None
        self.bad_events: set[str] = set()
        self.transactions = 0  # of events
        self.fail_read: Exception | None = None
        self.clock = time.time
        self.old = 0  # rows that are too old
        self.pruned: list[int] = []
        self.fail_prune: Exception | None = None
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    @property
    def samples(self) -> list[int]:
        return [sample for batch in self.saved for sample in batch]

    def save(self, answers: list[Pair]) -> None:
        self.entered.set()
        assert self.go_on.wait(IN_TIME_S)
        samples = [answer.sample for _, answer in answers]
        error = self.fail_save(samples)
        if error is not None:
            raise error
        self.saved.append(samples)

    def add_event(self, *event: Any) -> None:
        self.add_events([event])

    def add_events(self, events: list[Any]) -> None:
        self.transactions += 1
        if self.fail_event is not None:
            raise self.fail_event
        bad = [what for _, _, _, what, *_ in events if what in self.bad_events]
        if bad:
            raise OverflowError(bad[0])
        self.events += [" ".join(map(str, event[1:])).strip() for event in events]

    def write_setting(self, key: str, value: str) -> None:
        if self.fail_event is not None:
            raise self.fail_event

    def prune(self, now_s: float, keep_s: float, at_most: int) -> int:
        if self.fail_prune is not None:
            raise self.fail_prune
        assert abs(now_s - time.time()) < IN_TIME_S
        assert keep_s == 60.0
        self.pruned.append(min(self.old, at_most))
        self.old -= self.pruned[-1]
        return self.pruned[-1]

    def list_newest(self, n: int) -> list[object]:
        if self.fail_read is not None:
            raise self.fail_read
        return []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", (0.001, 0.002))
    monkeypatch.setattr(module, "BATCH_S", 0.005)


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture
def recorder(store: FailingStore) -> Iterator[Recorder]:
    recorder = Recorder(store)  # type: ignore[arg-type]
    yield recorder
    store.go_on.set()
    assert recorder.close(IN_TIME_S)


def wait_until(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.001)


def count_answers(confirmed: list[Saved]) -> int:
    """The number of confirmed answers; those of several jobs may be confirmed together."""
    return sum(len(saved.answers) for saved in confirmed)


def test_queued_answers_are_written_together(recorder: Recorder, store: FailingStore) -> None:
    confirmed: list[Saved] = []
    store.go_on.clear()
    recorder.save(Save([make_pair(0)]), confirmed.append)
    assert store.entered.wait(IN_TIME_S)  # the first is being written
    for sample in range(1, 6):
        recorder.save(Save([make_pair(sample)]), confirmed.append)
    recorder.record_event(1.0, "home", "cam1", "joined")
    assert confirmed == []  # nothing is confirmed before it is stored
    store.go_on.set()
    wait_until(lambda: len(confirmed) == 2)
    assert store.saved == [[0], [1, 2, 3, 4, 5]]
    assert confirmed == [Saved([make_pair(0)]), Saved([make_pair(n) for n in range(1, 6)])]
    assert store.events == ["home cam1 joined"]
    assert (recorder.given_up, recorder.refused, recorder.database_error) == (0, 0, "")


def test_a_write_is_retried_until_the_store_works(recorder: Recorder, store: FailingStore) -> None:
    """No answer is given up although reads may work (a lock, a full disk)."""
    confirmed: list[Saved] = []
    away = LinkError("disk full")
    tried: list[int] = []

    def fail(samples: list[int]) -> Exception:
        tried.append(len(samples))
        return away

    store.fail_save, store.fail_event = fail, away
    recorder.save(Save([make_pair(1), make_pair(2), make_pair(3)]), confirmed.append)
    wait_until(lambda: len(tried) > 4 * module.ATTEMPTS)
    assert recorder.database_error == "disk full"
    assert (confirmed, recorder.given_up) == ([], 0)
    store.fail_save, store.fail_event = lambda samples: None, None
    wait_until(lambda: confirmed)
    assert sorted(store.samples) == [1, 2, 3]
    assert confirmed == [Saved([make_pair(1), make_pair(2), make_pair(3)])]
    assert (recorder.database_error, recorder.given_up, store.events) == ("", 0, [])


def test_an_answer_is_kept_when_a_lock_ends_between_two_writes(
    recorder: Recorder, store: FailingStore
) -> None:
    """The first write that succeeds after the lock is not that of the answer."""
    tried: list[int] = []
    locked = LinkError("database is locked")

    def fail(samples: list[int]) -> Exception | None:
        tried.append(len(samples))
        return locked if len(tried) <= module.ATTEMPTS else None

    store.fail_save = fail
    confirmed: list[Saved] = []
    recorder.save(Save([make_pair(7)]), confirmed.append)
    wait_until(lambda: confirmed)
    assert (store.samples, recorder.given_up, store.events) == ([7], 0, [])


@pytest.mark.parametrize(
    "error",
    [
        LinkError("no such value"),
        OverflowError("too large"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("poison", [{0}, {7}, {3, 4}, {0, 99}, {50}, set(range(100))])
def test_only_the_answer_that_cannot_be_stored_is_given_up(
    recorder: Recorder, store: FailingStore, error: Exception, poison: set[int]
) -> None:
    store.fail_save = lambda samples: error if poison & set(samples) else None
    confirmed: list[Saved] = []
    recorder.save(Save([make_pair(sample) for sample in range(60)]), confirmed.append)
    recorder.save(Save([make_pair(sample) for sample in range(60, 100)]), confirmed.append)
    wait_until(lambda: count_answers(confirmed) == 100)
    assert store.samples == [sample for sample in range(100) if sample not in poison]
    assert recorder.given_up == len(poison)
    assert recorder.database_error == ""
    assert len(store.events) == len(poison)  # each is reported
    for sample, event in zip(sorted(poison), store.events, strict=True):
        assert event.startswith(f"home edge answer to sample {sample} given up: ")
    recorder.save(Save([make_pair(200)]), confirmed.append)  # the recorder continues
    wait_until(lambda: count_answers(confirmed) == 101)


def test_no_answer_is_given_up_while_the_store_cannot_be_read(
    recorder: Recorder, store: FailingStore
) -> None:
    tried: list[list[int]] = []

    def fail(samples: list[int]) -> Exception:
        tried.append(samples)
        return LinkError("away")

    store.fail_save, store.fail_read = fail, LinkError("away")
    recorder.save(Save([make_pair(1), make_pair(2)]), lambda saved: None)
    wait_until(lambda: len(tried) > 3 * module.ATTEMPTS)
    assert {tuple(samples) for samples in tried} == {(1, 2)}
    store.fail_save = lambda samples: None
    wait_until(lambda: store.saved == [[1, 2]])


def test_close_writes_what_is_queued(store: FailingStore) -> None:
    recorder = Recorder(store)  # type: ignore[arg-type]
    store.go_on.clear()
    recorder.save(Save([make_pair(0)]), lambda saved: None)
    assert store.entered.wait(IN_TIME_S)
    for sample in range(1, 50):
        recorder.save(Save([make_pair(sample)]), lambda saved: None)
    threading.Timer(0.05, store.go_on.set).start()
    assert recorder.close(IN_TIME_S)
    assert sorted(store.samples) == list(range(50))


def test_an_idle_recorder_closes_at_once(store: FailingStore) -> None:
    recorder = Recorder(store)  # type: ignore[arg-type]
    assert recorder.close(IN_TIME_S)
    assert recorder.close(0.1)


@pytest.mark.parametrize("works", [True, False])
def test_close_with_a_full_queue_ends_the_thread(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    monkeypatch.setattr(module, "QUEUE_LIMIT", 4)
    recorder = Recorder(store)  # type: ignore[arg-type]
    store.go_on.clear()
    for sample in range(20):
        recorder.save(Save([make_pair(sample)]), lambda saved: None)
        if sample == 0:
            assert store.entered.wait(IN_TIME_S)
    assert recorder.refused == 15  # one is being written, four wait
    if not works:
        store.fail_save = lambda samples: LinkError("away")
    threading.Timer(0.05, store.go_on.set).start()
    assert recorder.close(IN_TIME_S)
    assert sorted(store.samples) == ([0, 1, 2, 3, 4] if works else [])


def test_the_bound_of_the_queue_counts_answers_not_messages(
    recorder: Recorder, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog has hundreds in one message, and memory must stay bounded in an outage."""
    monkeypatch.setattr(module, "QUEUE_LIMIT", 10)
    store.go_on.clear()
    recorder.save(Save([make_pair(0)]), lambda saved: None)
    assert store.entered.wait(IN_TIME_S)
    confirmed: list[Saved] = []
    for first, last in ((1, 9), (9, 17), (17, 19), (19, 20)):
        recorder.save(Save([make_pair(i) for i in range(first, last)]), confirmed.append)
    recorder.record_event(1.0, "home", "cam1", "died")
    assert recorder.refused == 2  # 8 wait, 8 more do not fit, 2 do, then it is full
    store.go_on.set()
    wait_until(lambda: count_answers(confirmed) == 10)
    assert store.samples == [0, *range(1, 9), 17, 18]
    recorder.record_event(1.0, "home", "cam1", "died", "7")  # there is room again
    wait_until(lambda: store.events == ["home cam1 died", "home cam1 died 7"])


def test_old_rows_are_deleted_between_the_batches(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small parts, so that many old answers do not delay a new one."""
    monkeypatch.setattr(module, "PRUNE_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "PRUNE_EVERY_S", 0.05)
    store.old = 10 * module.PRUNE_AT_MOST + 1
    store.fail_prune = LinkError("away")
    recorder = Recorder(store, keep_s=60.0)  # type: ignore[arg-type]
    confirmed: list[Saved] = []
    recorder.save(Save([make_pair(0)]), confirmed.append)
    wait_until(lambda: confirmed)  # a failed deletion stops nothing
    assert recorder.database_error == ""
    store.fail_prune = None
    sample = 1
    while store.old:
        recorder.save(Save([make_pair(sample)]), confirmed.append)
        wait_until(lambda: count_answers(confirmed) > sample)  # noqa: B023 - called at once
        sample += 1
    assert max(store.pruned) == module.PRUNE_AT_MOST
    pruned = len(store.pruned)
    store.old = 5
    wait_until(lambda: not store.old)  # without new answers too
    assert len(store.pruned) > pruned
    assert recorder.close(IN_TIME_S)


def test_nothing_is_deleted_while_the_clock_is_not_trusted(store: FailingStore) -> None:
    store.old = 5
    asked: list[bool] = []

    def may_delete() -> bool:
        asked.append(True)
        return False

    recorder = Recorder(store, 60.0, may_delete)  # type: ignore[arg-type]
    confirmed: list[Saved] = []
    recorder.save(Save([make_pair(0)]), confirmed.append)
    wait_until(lambda: confirmed and asked)
    assert recorder.close(IN_TIME_S)
    assert store.pruned == []


def test_without_a_retention_time_nothing_is_deleted(
    recorder: Recorder, store: FailingStore
) -> None:
    confirmed: list[Saved] = []
    store.old = 5
    recorder.save(Save([make_pair(0)]), confirmed.append)
    wait_until(lambda: confirmed)
    recorder.save(Save([make_pair(1)]), confirmed.append)
    wait_until(lambda: count_answers(confirmed) == 2)
    assert store.pruned == []


def test_answers_and_events_reach_a_real_database(tmp_path: Path) -> None:
    """SQLite cannot hold the sample 2**70; its driver raises an error of another type."""
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    recorder = Recorder(store)
    confirmed: list[Saved] = []
    recorder.save(Save([make_pair(1), make_pair(2**70), make_pair(2)]), confirmed.append)
    recorder.record_event(1.0, "home", "cam1", "joined")
    wait_until(lambda: confirmed)
    assert recorder.close(IN_TIME_S)
    assert [record.answer.sample for record in store.list_newest(9)] == [2, 1]
    whats = [event.what for event in store.list_events(9)]
    assert whats[0] == "joined"
    assert whats[1].startswith(f"answer to sample {2**70} given up: ")
    store.close()


def test_a_flood_of_events_takes_few_transactions_and_no_room_of_answers(
    recorder: Recorder, store: FailingStore
) -> None:
    store.go_on.clear()
    confirmed: list[Saved] = []
    recorder.save(Save([make_pair(0)]), confirmed.append)
    assert store.entered.wait(IN_TIME_S)
    for n in range(12_000):
        recorder.record_event(1.0, "home", f"made-up-{n}", "joined", "1-online")
    for sample in range(1, 100):
        recorder.save(Save([make_pair(sample)]), confirmed.append)
    assert recorder.refused == 0
    store.go_on.set()
    wait_until(lambda: count_answers(confirmed) == 100)
    wait_until(lambda: len(store.events) == module.EVENT_LIMIT)
    assert store.transactions <= 3
    assert recorder.read_counts()["events_refused"] == 12_000 - module.EVENT_LIMIT


def test_an_event_that_cannot_be_stored_keeps_nothing_else(
    recorder: Recorder, store: FailingStore
) -> None:
    store.bad_events = {"bad"}
    store.go_on.clear()
    confirmed: list[Saved] = []
    recorder.save(Save([make_pair(0)]), confirmed.append)
    assert store.entered.wait(IN_TIME_S)
    for n in range(20):
        recorder.record_event(1.0, "home", f"cam{n}", "bad" if n == 7 else "joined")
    store.go_on.set()
    wait_until(lambda: len(store.events) == 19)
    recorder.save(Save([make_pair(1)]), confirmed.append)
    wait_until(lambda: count_answers(confirmed) == 2)
    assert recorder.read_counts()["events_refused"] == 1
