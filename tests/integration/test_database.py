"""A PostgreSQL server that dies or stands still under load: no answer is lost, nothing hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import psutil
import pytest

from cloud_app.recorder import QUEUE_LIMIT, Recorder
from cloud_app.store import Store
from cloud_app.store.database import CONNECT_TIMEOUT_S, SILENCE_S
from ddnn.errors import LinkError
from ddnn.protocol.machine import Save, Saved
from ddnn.protocol.messages import MAX_BATCH, Answer
from tests.answer_builder import make_answer
from tests.postgres import Postgres, running_postgres

IN_TIME_S = 60.0
NOTICED_S = SILENCE_S + 2 * CONNECT_TIMEOUT_S + 10.0
ANSWERS = 6000
RESEND_S = 0.5


class Node:
    """Answers 2,000 samples a second, keeps what is not confirmed, sends it again: an outbox."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._pending: dict[int, tuple[str, Answer]] = {}
        self._lock = threading.Lock()
        self.confirmed: set[int] = set()
        self.made = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        resend_s = time.monotonic() + RESEND_S
        while not self._ended.is_set() and len(self.confirmed) < ANSWERS:
            if self.made < ANSWERS:
                some = [("home", make_answer(self.made + i)) for i in range(20)]
                self.made += len(some)
                with self._lock:
                    self._pending |= {answer.sample: (site, answer) for site, answer in some}
                self._recorder.save(Save(some), self._done)
            if time.monotonic() > resend_s:
                with self._lock:
                    again = list(self._pending.values())
                for start in range(0, len(again), MAX_BATCH):
                    self._recorder.save(Save(again[start : start + MAX_BATCH]), self._done)
                resend_s = time.monotonic() + RESEND_S
            self._ended.wait(0.01)

    def _done(self, saved: Saved) -> None:
        with self._lock:
            for _, answer in saved.answers:
                self._pending.pop(answer.sample, None)
                self.confirmed.add(answer.sample)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(IN_TIME_S)


@pytest.fixture
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def store(server: Postgres) -> Iterator[Store]:
    store = Store(server.database())
    yield store
    store.close()


def wait_until(true: Callable[[], object], within_s: float = IN_TIME_S) -> None:
    until_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.01)


def measure_refusal_s(store: Store) -> float:
    """How long a reader waits until it is refused because the database is away."""
    start_s = time.monotonic()
    with pytest.raises(LinkError, match="server up"):
        store.list_newest(1)
    return time.monotonic() - start_s


@pytest.mark.parametrize("how", ["kill", "stop", "freeze"])
def test_an_outage_loses_no_answer(server: Postgres, store: Store, how: str) -> None:
    recorder = Recorder(store)
    node = Node(recorder)
    try:
        wait_until(lambda: len(node.confirmed) > 500)
        getattr(server, how)()
        stored_before = len(node.confirmed)
        assert measure_refusal_s(store) < (NOTICED_S if how == "freeze" else 1.0)
        wait_until(lambda: recorder.database_error, NOTICED_S)
        assert "database postgresql" in recorder.database_error
        assert stored_before <= len(node.confirmed) < ANSWERS
        server.thaw() if how == "freeze" else server.start()
        wait_until(lambda: len(node.confirmed) == ANSWERS)
        wait_until(lambda: not recorder.database_error)
    finally:
        node.close()
        server.thaw()
        assert recorder.close(IN_TIME_S)
    samples = [record.answer.sample for record in store.list_newest(2 * ANSWERS)]
    assert sorted(samples) == list(range(ANSWERS))
    assert store.summarize().answered == sum(store.count_samples().values()) == ANSWERS
    assert recorder.given_up == 0


def test_what_is_confirmed_is_there_after_a_kill(server: Postgres, store: Store) -> None:
    """Not only in the end: at the moment of death, too, nothing was confirmed that is not there."""
    recorder = Recorder(store)
    node = Node(recorder)
    try:
        wait_until(lambda: len(node.confirmed) > 1000)
        server.kill()
        node.close()
        confirmed = set(node.confirmed)
        recorder.close(0.1)  # what waits is not written any more
        server.start()
        assert confirmed <= {record.answer.sample for record in store.list_newest(2 * ANSWERS)}
    finally:
        node.close()
        recorder.close(IN_TIME_S)


def test_memory_is_bounded_while_the_database_is_away(server: Postgres, store: Store) -> None:
    """A day's backlog of all nodes comes in: a bounded part waits, the rest is refused."""
    recorder = Recorder(store)
    server.stop()
    line = msgspec.json.encode([make_answer(i) for i in range(MAX_BATCH)])
    confirmed: list[Saved] = []

    def offer(messages: int) -> None:
        for _ in range(messages):
            answers = msgspec.json.decode(line, type=list[Answer])
            recorder.save(Save([("home", answer) for answer in answers]), confirmed.append)

    process = psutil.Process()
    offer(2 * QUEUE_LIMIT // MAX_BATCH)  # now it is full
    full_bytes = process.memory_info().rss
    offered = 20 * QUEUE_LIMIT // MAX_BATCH
    offer(offered)
    assert process.memory_info().rss - full_bytes < 20e6
    assert recorder.refused >= offered
    wait_until(lambda: recorder.database_error)
    server.start()
    wait_until(lambda: confirmed and not recorder.database_error)
    assert recorder.close(IN_TIME_S)
    assert store.summarize().answered == MAX_BATCH  # many times the same: each stored once


def test_a_frozen_server_delays_nobody_for_long(server: Postgres, store: Store) -> None:
    """Readers and a program that starts get an error in bounded time; afterwards all is well."""
    store.list_newest(1)
    server.freeze()
    try:
        assert measure_refusal_s(store) < NOTICED_S
        start_s = time.monotonic()
        with pytest.raises(LinkError):
            Store(server.url)
        assert time.monotonic() - start_s < NOTICED_S
    finally:
        server.thaw()
    assert store.list_newest(1) == []


def test_a_statement_that_takes_too_long_is_ended(store: Store) -> None:
    """Another program locks the table: the server gives a reader up, whose connection stays."""
    import psycopg

    other = psycopg.connect(store.database.engine.url.render_as_string().replace("+psycopg", ""))
    other.execute("LOCK TABLE answers IN ACCESS EXCLUSIVE MODE")
    try:
        with pytest.raises(LinkError, match="statement timeout"):
            store.list_newest(1)
    finally:
        other.close()
    assert store.list_newest(1) == []
