"""Answers per second into the database; part `ingest` of benchmarks.cloud.

The real Recorder and Store, fed as the cloud's machine feeds them: one answer per Save, as results
come, or as many as a backlog holds. It is timed from the first Save to the last confirmation, with
never more than MAX_UNCONFIRMED answers unconfirmed. The baseline writes the same rows in batches of
the same size by bare executemany inserts into a table of the same columns in the same database,
without uniqueness, merging, sums or roll-ups. At the aim's rate the time from Save to confirmation
is measured, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Column, MetaData, Table, insert

from benchmarks.harness.percentiles import quantiles_ms
from benchmarks.harness.synthetic_answers import draw_answers
from cloud_app.recorder import BATCH_ANSWERS, Recorder
from cloud_app.store import Record, Store
from cloud_app.store.rows import make_row
from cloud_app.store.schema import ANSWERS
from ddnn.errors import DdnnError
from ddnn.protocol.machine import Save, Saved
from ddnn.protocol.messages import MAX_BATCH, Answer

AIM_PER_S = 2000.0
MAX_UNCONFIRMED = 4000
SITES = [f"site{number + 1}" for number in range(20)]
CONFIRM_S = 60.0

Pairs = list[tuple[str, Answer]]


class Feed:
    """Passes answers to a recorder and measures the time to each confirmation."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._free = threading.Semaphore(MAX_UNCONFIRMED)
        self._left = 0
        self._lock = threading.Lock()
        self._all = threading.Event()
        self.took_s: list[float] = []

    def run(self, parts: Sequence[Pairs], rate_per_s: float | None) -> float:
        """Seconds until all are confirmed; one Save per part, at a rate or as fast as it goes."""
        self._left = sum(map(len, parts))
        began_s, given = time.perf_counter(), 0
        for part in parts:
            if rate_per_s is not None:
                time.sleep(max(0.0, began_s + given / rate_per_s - time.perf_counter()))
            for _ in part:
                self._free.acquire()
            given += len(part)
            self._save(part)
        if not self._all.wait(CONFIRM_S):
            raise DdnnError(f"{self._left} answers were not confirmed in {CONFIRM_S} s")
        return time.perf_counter() - began_s

    def _save(self, part: Pairs) -> None:
        saved_s = time.perf_counter()

        def note_saved(saved: Saved) -> None:
            with self._lock:
                self.took_s.append(time.perf_counter() - saved_s)
                self._left -= len(saved.answers)
                last = self._left <= 0
            self._free.release(len(saved.answers))
            if last:
                self._all.set()

        self._recorder.save(Save(part), note_saved)


def insert_bare(store: Store, pairs: Pairs) -> float:
    """Seconds to insert the rows of these answers, and nothing else, in batches."""
    columns = (Column(c.name, c.type, primary_key=c.primary_key) for c in ANSWERS.columns)
    table = Table("bare_inserts", MetaData(), *columns)
    rows = [
        {**make_row(Record(site, answer, answer.answered_at_s)), "stored_at_s": 0.0}
        for site, answer in pairs
    ]
    with store.database.write() as link:
        table.create(link)
    began_s = time.perf_counter()
    for start in range(0, len(rows), BATCH_ANSWERS):
        with store.database.write() as link:
            link.execute(insert(table), rows[start : start + BATCH_ANSWERS])
    return time.perf_counter() - began_s


def measure_ingest(url: str, count: int, aim_s: float, seed: int) -> dict[str, Any]:
    """`count` answers as fast as it goes, singly and in backlogs, and `aim_s` at the aim's rate."""
    store = Store(url)
    recorder = Recorder(store)
    try:
        pace = int(AIM_PER_S * aim_s)
        total = 2 * count + pace
        pairs = list(draw_answers(np.random.default_rng(seed), SITES, total, time.time(), 10.0))
        single, backlog, paced = pairs[:count], pairs[count : 2 * count], pairs[2 * count :]
        single_s = Feed(recorder).run([[pair] for pair in single], None)
        parts = [backlog[start : start + MAX_BATCH] for start in range(0, count, MAX_BATCH)]
        backlog_s = Feed(recorder).run(parts, None)
        feed, busy_s = Feed(recorder), time.process_time()
        paced_s = feed.run([[pair] for pair in paced], AIM_PER_S)
        busy_s = time.process_time() - busy_s
        stored = store.summarize().answered
        bare_s = insert_bare(store, single)
    finally:
        recorder.close()
        store.close()
    return {
        "answers_per_s": round(count / single_s),
        "backlog_answers_per_s": round(count / backlog_s),
        "bare_inserts_per_s": round(count / bare_s),
        "ratio": round(bare_s / single_s, 3),
        "at_aim": {
            "answers_per_s": round(pace / paced_s),
            "confirmed": quantiles_ms(feed.took_s),
            "cores": round(busy_s / paced_s, 3),
        },
        "given": total,
        "stored": stored,
        "refused": recorder.refused,
        "aim_per_s": AIM_PER_S,
        "holds": count / single_s >= AIM_PER_S and stored == total and not recorder.refused,
    }
