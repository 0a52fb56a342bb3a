"""How many tasks may wait for another node at once: a congestion window.

A cloud or workers that are slower than their edge complete all tasks too late if they get all of
them. As in TCP the window grows by one for each full window of replies that come soon, and shrinks
where one comes late. Beyond the window the edge does at once without them.
"""

from __future__ import annotations

LEAST, START, MOST = 1.0, 32.0, 1024.0
SOON, LATE = 0.5, 0.75  # parts of the time in which a reply is of use
SHRINK_LATE, SHRINK_MISSED = 0.8, 0.5


class Window:
    """Counts the tasks that wait for a reply."""

    def __init__(self, late: float = LATE) -> None:
        """late: the part of the time after which a reply makes the window smaller."""
        self.size, self._late = START, late
        self._sent: dict[int, tuple[float, float]] = {}  # by task: when, and until when to wait
        self._shrunk_s = -1.0  # when the window was reduced last

    @property
    def is_full(self) -> bool:
        return len(self._sent) >= self.size

    def send(self, task: int, now_s: float, until_s: float) -> None:
        """Note that a task waits for a reply, at most until a time."""
        self._sent[task] = now_s, until_s

    def receive(self, task: int, now_s: float) -> None:
        """Note the reply to a task that waits."""
        waiting = len(self._sent)
        sent_s, until_s = self._sent.pop(task, (now_s, now_s))
        if until_s <= sent_s:
            return
        part = (now_s - sent_s) / (until_s - sent_s)
        if part < SOON:
            self.size = min(MOST, self.size + 1 / self.size)
        elif part > self._late:
            self._shrink(SHRINK_LATE, waiting, sent_s, now_s)

    def miss(self, task: int, now_s: float) -> None:
        """Note that a reply did not come in time."""
        waiting = len(self._sent)
        sent_s, _ = self._sent.pop(task, (self._shrunk_s, 0.0))
        self._shrink(SHRINK_MISSED, waiting, sent_s, now_s)

    def drop(self, task: int) -> None:
        """Note that a task waits no longer, for another reason."""
        self._sent.pop(task, None)

    def _shrink(self, factor: float, waiting: int, sent_s: float, now_s: float) -> None:
        """Reduce the window to a part of what waits, once for what was sent before the last time.

        A window that is larger than what waits limits nothing: its size says nothing.
        """
        if sent_s > self._shrunk_s:
            self.size = max(LEAST, factor * min(self.size, waiting))
            self._shrunk_s = now_s
