"""The one thread that writes answers and events into the store."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from cloud_app.store import Store
from ddnn.errors import LinkError
from ddnn.protocol.machine import Save, Saved

log = logging.getLogger(__name__)

BATCH_S = 0.03  # answers that come within this are written together
BATCH_ANSWERS = 1000
QUEUE_LIMIT = 10_000  # saves waiting for the database; nodes keep and resend what is refused
RETRY_S = (0.2, 5.0)

_Job = tuple[Save, Callable[[Saved], None]] | tuple[float, str, str, str]


class Recorder:
    """Batches Save effects into transactions; confirms only what is committed.

    While the database is away the batch is retried. Answers beyond the queue's bound are not
    confirmed, so that their nodes keep them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: queue.Queue[_Job | None] = queue.Queue(QUEUE_LIMIT)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()
        self.refused = 0
        self.away = ""  # why the database cannot be written, empty while it can

    def save(self, effect: Save, done: Callable[[Saved], None]) -> None:
        self._put((effect, done))

    def event(self, at_s: float, site: str, node: str, what: str) -> None:
        self._put((at_s, site, node, what))

    def close(self, timeout_s: float = 3.0) -> None:
        """Write what is queued, then end."""
        self._put(None)
        self._closing.set()
        self._thread.join(timeout_s)

    def _put(self, job: _Job | None) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.refused += 1

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            batch = [job]
            size = 0
            until_s = time.monotonic() + BATCH_S
            ended = False
            while size < BATCH_ANSWERS:
                try:
                    job = self._jobs.get(timeout=max(0.0, until_s - time.monotonic()))
                except queue.Empty:
                    break
                if job is None:
                    ended = True
                    break
                batch.append(job)
                size += len(job[0].answers) if isinstance(job[0], Save) else 0
            self._write(batch)
            if ended:
                return

    def _write(self, batch: list[_Job]) -> None:
        answers = [pair for job in batch if isinstance(job[0], Save) for pair in job[0].answers]
        events = [job for job in batch if not isinstance(job[0], Save)]
        wait_s = RETRY_S[0]
        while True:
            try:
                if answers:
                    self._store.save(answers)
                    answers = []
                while events:
                    self._store.add_event(*events[0])
                    events.pop(0)
                break
            except LinkError as error:
                self.away = str(error)
                log.error("%s; trying again in %.1f s", error, wait_s)
                if self._closing.wait(wait_s):
                    return
                wait_s = min(2 * wait_s, RETRY_S[1])
        self.away = ""
        for job in batch:
            if isinstance(job[0], Save):
                job[1](Saved(job[0].answers))
