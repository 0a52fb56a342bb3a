"""The one thread that writes answers and events into the store."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable

from cloud_app.store import Store
from ddnn.protocol.machine import Save, Saved
from ddnn.protocol.messages import Answer

log = logging.getLogger(__name__)

BATCH_S = 0.03  # answers that come within this are written together
BATCH_ANSWERS = 1000
QUEUE_LIMIT = 10_000  # saves waiting for the database; nodes keep and resend what is refused
RETRY_S = (0.2, 5.0)
ATTEMPTS = 4  # failures of a batch before its content is suspected

_Event = tuple[float, str, str, str]
_Job = tuple[Save, Callable[[Saved], None]] | _Event
_Answers = list[tuple[str, Answer]]


class Recorder:
    """Batches Save effects into transactions; confirms only what is committed.

    While the database is away the batch is retried. Answers beyond the queue's bound are not
    confirmed, so that their nodes keep them. An answer that a working database will not take for
    its content is given up: an event in the same database says so, and its node may forget it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: queue.Queue[_Job | None] = queue.Queue(QUEUE_LIMIT)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()
        self.refused = 0  # jobs beyond the queue's bound
        self.given_up = 0  # answers that the database will not take
        self.away = ""  # why the database cannot be written, empty while it can

    def save(self, effect: Save, done: Callable[[Saved], None]) -> None:
        self._put((effect, done))

    def event(self, at_s: float, site: str, node: str, what: str) -> None:
        self._put((at_s, site, node, what))

    def close(self, timeout_s: float = 3.0) -> bool:
        """Write what is queued, then end; True once the thread has ended."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then it does not wait, and ends when all is written
            self._jobs.put_nowait(None)  # wakes a thread that waits for jobs
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, job: _Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.refused += 1

    def _run(self) -> None:
        while not (self._closing.is_set() and self._jobs.empty()):
            job = self._jobs.get()
            batch: list[_Job] = []
            size = 0
            until_s = time.monotonic() + BATCH_S
            while job is not None:
                batch.append(job)
                size += len(job[0].answers) if isinstance(job[0], Save) else 0
                if size >= BATCH_ANSWERS:
                    break
                try:
                    job = self._jobs.get(timeout=max(0.0, until_s - time.monotonic()))
                except queue.Empty:
                    break
            self._write(batch)

    def _write(self, batch: list[_Job]) -> None:
        """Return once all of it is stored and confirmed, or this recorder is closing."""
        answers = [pair for job in batch if isinstance(job[0], Save) for pair in job[0].answers]
        events = [job for job in batch if not isinstance(job[0], Save)]
        parts = [answers] if answers else []
        failures, wait_s = 0, RETRY_S[0]
        while parts or events:
            try:
                if parts:
                    self._store.save(parts[0])
                    parts.pop(0)
                else:
                    self._store.add_event(*events[0])
                    events.pop(0)
                wait_s = RETRY_S[0]
            except Exception as error:  # of a driver, for instance: this thread must live on
                failures += 1
                if parts and failures >= ATTEMPTS and self._separate(parts, error):
                    continue
                self.away = str(error)
                log.error("%s; trying again in %.1f s", error, wait_s)
                if self._closing.wait(wait_s):
                    return
                wait_s = min(2 * wait_s, RETRY_S[1])
        self.away = ""
        for job in batch:
            if isinstance(job[0], Save):
                job[1](Saved(job[0].answers))

    def _separate(self, parts: list[_Answers], error: Exception) -> bool:
        """Halve the part that fails; give a single answer up. False: it is the database that fails.

        To give up takes a successful write, so that a full disk or a lock costs no answer.
        """
        first = parts[0]
        try:
            if len(first) > 1:
                self._store.newest(1)
                middle = len(first) // 2
                parts[:1] = [first[:middle], first[middle:]]
                return True
            site, answer = first[0]
            what = f"answer to sample {answer.sample} given up: {str(error)!r}"
            self._store.add_event(time.time(), site, answer.node, what[:500])
        except Exception:  # the database is away, or full: nothing is wrong with the answers
            return False
        self.given_up += 1
        log.error("%s: %s", site, what)
        parts.pop(0)
        return True
