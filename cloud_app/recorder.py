"""The thread that writes answers and events into the store."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from cloud_app.store import Store
from ddnn.protocol.machine import Save, Saved
from ddnn.protocol.messages import Answer

log = logging.getLogger(__name__)

BATCH_S = 0.1  # answers that arrive within this time are written and confirmed together
BATCH_ANSWERS = 1000
QUEUE_LIMIT = 10_000  # answers; nodes keep and resend those that are refused
EVENT_LIMIT = 1000  # events in the queue: however many there are, answers have room beside them
CLASSES_PER_ENTRY = 100  # of so many classes an answer counts as one entry more
RETRY_S = (0.2, 5.0)
ATTEMPTS = 4  # failures of a batch before a single answer is taken to be the cause
PRUNE_EVERY_S = 60.0
PRUNE_AT_MOST = 1000  # rows in one transaction; answers wait meanwhile
PRUNE_PAUSE_S = 0.2  # between two such transactions: 5000 rows/s, more than can arrive

_Event = tuple[float, str, str, str, str]
_Job = tuple[Save, Callable[[Saved], None]] | _Event
_Answers = list[tuple[str, Answer]]


class Recorder:
    """Batches Save effects into transactions; confirms only what is committed.

    While the database is away, the batch is retried. Answers beyond the queue's bound are not
    confirmed, so that their nodes keep them. An answer whose content a working database rejects is
    given up: an event in the same database reports it, and the answer is confirmed.

    Between the batches, answers and events that were stored more than `keep_s` ago are deleted,
    while `may_delete` says that the store's clock is right.
    """

    def __init__(
        self,
        store: Store,
        keep_s: float | None = None,
        may_delete: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._keep_s, self._may_delete = keep_s, may_delete
        self._prune_at_s = time.monotonic()
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._waiting = 0  # answers in the queue
        self._waiting_events = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()
        self.refused = 0  # jobs beyond the queue's bound
        self.events_refused = 0  # the same of events, or those that the database rejects
        self.given_up = 0  # answers that the database rejects
        self.database_error = ""  # why the database cannot be written; empty while it can

    def save(self, effect: Save, done: Callable[[Saved], None]) -> None:
        size = _count_entries(effect)
        with self._lock:
            if self._waiting and self._waiting + size > QUEUE_LIMIT:
                self.refused += 1
                return
            self._waiting += size
        self._jobs.put((effect, done))

    def record_event(self, at_s: float, site: str, node: str, text: str, key: str = "") -> None:
        with self._lock:
            if self._waiting_events >= EVENT_LIMIT:
                self.events_refused += 1
                return
            self._waiting_events += 1
        self._jobs.put((at_s, site, node, text, key))

    def read_counts(self) -> dict[str, int]:
        """The counts for the node's statistics."""
        return {
            "answers_refused": self.refused,
            "answers_given_up": self.given_up,
            "events_refused": self.events_refused,
        }

    def close(self, timeout_s: float = 3.0) -> bool:
        """Write what is queued, then end; True once the thread has ended."""
        self._closing.set()
        self._jobs.put(None)  # wakes a thread that waits for jobs
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _get(self, timeout_s: float | None) -> _Job | None:
        """Take the next job; None wakes the thread only. queue.Empty: no job within the time."""
        job = self._jobs.get(timeout=timeout_s)
        if job is not None:
            with self._lock:
                if isinstance(job[0], Save):
                    self._waiting -= _count_entries(job[0])
                else:
                    self._waiting_events -= 1
        return job

    def _run(self) -> None:
        while not (self._closing.is_set() and self._jobs.empty()):
            batch = self._collect_batch()
            if batch:
                self._write(batch)
            if self._keep_s is not None and time.monotonic() >= self._prune_at_s:
                self._prune(self._keep_s)

    def _collect_batch(self) -> list[_Job]:
        """Collect the jobs of the next BATCH_S; none when it is time to prune."""
        batch: list[_Job] = []
        size = 0
        wait_s = None if self._keep_s is None else self._prune_at_s - time.monotonic()
        until_s = 0.0
        while size < BATCH_ANSWERS:
            try:
                job = self._get(wait_s if wait_s is None else max(0.0, wait_s))
            except queue.Empty:
                break
            if job is None:
                break
            if not batch:
                until_s = time.monotonic() + BATCH_S
            batch.append(job)
            size += len(job[0].answers) if isinstance(job[0], Save) else 0
            wait_s = until_s - time.monotonic()
        return batch

    def _prune(self, keep_s: float) -> None:
        pause_s = PRUNE_EVERY_S
        try:
            if self._may_delete():
                deleted = self._store.prune(self._store.clock(), keep_s, PRUNE_AT_MOST)
                if deleted >= PRUNE_AT_MOST:
                    pause_s = PRUNE_PAUSE_S
        except Exception as error:  # whatever the driver raises, this thread must not end
            log.error("old answers cannot be deleted: %s", error)
        self._prune_at_s = time.monotonic() + pause_s

    def _write(self, batch: list[_Job]) -> None:
        """Store and confirm the batch; return when this is done or the recorder is closing."""
        answers = [pair for job in batch if isinstance(job[0], Save) for pair in job[0].answers]
        events = [job for job in batch if not isinstance(job[0], Save)]
        parts = [answers] if answers else []
        failures, wait_s, events_at_once = 0, RETRY_S[0], EVENT_LIMIT
        while parts or events:
            try:
                if parts:
                    self._store.save(parts[0])
                    parts.pop(0)
                else:
                    self._store.add_events(events[:events_at_once])
                    del events[:events_at_once]
                wait_s = RETRY_S[0]
            except Exception as error:  # whatever the driver raises, this thread must not end
                failures += 1
                if parts and failures >= ATTEMPTS and self._separate(parts, error):
                    continue
                if not parts and failures >= ATTEMPTS and self._is_up():
                    if events_at_once == 1:
                        log.error("the event %s is dropped: %s", events.pop(0), error)
                        self.events_refused += 1
                    events_at_once = max(1, events_at_once // 2)
                    continue
                self.database_error = str(error)
                log.error("%s; trying again in %.1f s", error, wait_s)
                if self._closing.wait(wait_s):
                    return
                wait_s = min(2 * wait_s, RETRY_S[1])
        self.database_error = ""
        confirmed: dict[Callable[[Saved], None], _Answers] = {}
        for job in batch:
            if isinstance(job[0], Save):
                confirmed.setdefault(job[1], []).extend(job[0].answers)
        for done, stored in confirmed.items():  # one confirmation of them all
            done(Saved(stored))

    def _is_up(self) -> bool:
        """Whether the database can be written: a full disk or a lock must not cost an event."""
        try:
            self._store.write_setting("recorder_probe_s", f"{time.time():.0f}")
        except Exception:
            return False
        return True

    def _save_again(self, answers: _Answers) -> bool:
        try:
            self._store.save(answers)
        except Exception:  # whatever the driver raises
            return False
        return True

    def _separate(self, parts: list[_Answers], error: Exception) -> bool:
        """Halve the part that fails, or give up its only answer. False: the database itself fails.

        An answer is given up only if it fails once more right after another write succeeded: a full
        disk or a lock must not cost one.
        """
        first = parts[0]
        try:
            if len(first) > 1:
                self._store.list_newest(1)
                middle = len(first) // 2
                parts[:1] = [first[:middle], first[middle:]]
                return True
            if not self._is_up():
                return False
            if self._save_again(first):
                parts.pop(0)
                return True
            site, answer = first[0]
            text = f"answer to sample {answer.sample} given up: {str(error)!r}"
            self._store.add_event(time.time(), site, answer.node, text[:500])
        except Exception:  # the database is away or full: the answers are not the cause
            return False
        self.given_up += 1
        log.error("%s: %s", site, text)
        parts.pop(0)
        return True


def _count_entries(effect: Save) -> int:
    """The number of entries that answers take of the queue's bound."""
    return sum(1 + len(answer.probabilities) // CLASSES_PER_ENTRY for _, answer in effect.answers)
