"""Several threads and processes use one database at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cloud_app.store import Change, NotFound, Store
from tests.answer_builder import make_answer as make
from tests.contracts.store_recount import assert_same, flatten, recount

IN_TIME_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


def run_together(*jobs: Callable[[], object]) -> list[Exception]:
    """Run the jobs at once. Return what they raised."""
    failed: list[Exception] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(IN_TIME_S)
    assert not any(thread.is_alive() for thread in threads)
    return failed


def test_readers_beside_a_writer_see_whole_batches_only(store: Store) -> None:
    done = threading.Event()
    wrong: list[object] = []

    def write() -> None:
        try:
            for start in range(0, 600, 20):
                store.save([("home", make(i)) for i in range(start, start + 20)])
                store.add_event(float(start), "home", "cam1", "joined")
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            answered = store.summarize().answered
            if answered % 20 or len(store.list_newest(20)) not in (0, 20):
                wrong.append(answered)

    assert run_together(write, read, read, read) == []
    assert wrong == []
    assert store.summarize().answered == 600


def test_several_clouds_write_the_same_samples(url: str) -> None:
    """Each device answers for itself and each answer comes by another cloud, in another order."""
    stores = [Store(url) for _ in range(4)]

    def writer(i: int) -> Callable[[], None]:
        def write() -> None:
            order = [(j + 25 * i) % 100 for j in range(100)]
            for start in range(0, 100, 10):
                some = order[start : start + 10]
                stores[i].save([("home", make(j, node=f"cam{i}", eta=0.1 * i)) for j in some])

        return write

    def label() -> None:
        for j in range(100):
            while True:
                try:
                    stores[0].set_label("home", j, 0, "ada", 1.0)
                except NotFound:
                    continue
                break

    failed = run_together(*(writer(i) for i in range(4)), label)
    assert failed == []
    records = stores[0].list_newest(999)
    assert len(records) == 100
    assert {(record.answer.node, record.labelled) for record in records} == {("cam0", 0)}
    assert_same(flatten(stores[0].summarize()), recount(records))
    assert sum(stores[0].count_samples().values()) == 100
    for store in stores:
        store.close()


def test_changes_at_once_get_different_revisions(url: str) -> None:
    stores = [Store(url), Store(url)]
    change = Change(1.0, "home", "ada", {}, {}, 0, "applied")
    failed = run_together(*(lambda s=s: [s.add_change(change) for _ in range(20)] for s in stores))
    assert failed == []
    assert [c.revision for c in stores[0].list_changes("home", 99)] == [*range(40, 0, -1)]
    for store in stores:
        store.close()


def test_processes_that_start_at_once_make_the_tables_once(url: str) -> None:
    program = "import sys; from cloud_app.store import Store; Store(sys.argv[1]).close()"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, cwd=ROOT)
        for _ in range(6)
    ]
    errors = [process.communicate(timeout=IN_TIME_S)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, errors
    store = Store(url)
    store.save([("home", make())])
    store.close()
