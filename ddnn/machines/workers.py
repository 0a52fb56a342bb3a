"""The workers of one plan: who is there, what they hold, how they do.

A worker is known by its retained WorkerOffer, is present by its Status, and is worth counting on
until it has missed two tasks in a row (see Membership). A worker whose results contradict the
others' is quarantined for the rest of its session.

    state     a worker is in it
    LOST      while it is not online
    FAULTY    from its quarantine until its next session
    STALLED   after two missed tasks, until it reports in time
    LOADING   while it holds none of the pieces that it is assigned
    LIVE      otherwise: tasks wait for it
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import MAX_PIECES
from ddnn.machines.availability import Availability
from ddnn.machines.membership import Membership
from ddnn.protocol.messages import Status, WorkerOffer
from ddnn.protocol.offload_state import WorkerState

MAX_WORKERS = 1024  # besides the planned ones
MAX_NODES = 4 * MAX_WORKERS  # of the site, whose presence is remembered
SMOOTHING = 0.1  # weight of the newest value in an average
NO_PIECES: frozenset[int] = frozenset()


class Health(Enum):
    """The states of a worker, with their names in messages."""

    LOST = "lost"
    FAULTY = "faulty"
    STALLED = "stalled"
    LOADING = "loading"
    LIVE = "live"


@dataclass(slots=True)
class Worker:
    """One that offers to work for this plan."""

    holds: frozenset[int] = NO_PIECES
    profile: DeviceProfile | None = None  # as it announced it
    answered: int = 0  # pieces in time
    used: int = 0  # of them, before there were enough
    late: int = 0  # of them, after there were enough
    missed: int = 0  # tasks that ended without it
    latency_s: float = 0.0  # task to result, smoothed

    def count_result(self, *, late: bool, after_s: float) -> None:
        """late: after there were enough, or after the same piece of another worker."""
        self.answered += 1
        self.used += not late
        self.late += late
        self.latency_s = smooth(self.latency_s, after_s)


class WorkerPool:
    """All workers of one plan. Bounded: a flood of strangers keeps no worker of use out."""

    def __init__(self, plan: str, planned: Mapping[str, tuple[int, ...]]) -> None:
        self.plan, self.planned = plan, dict(planned)
        self.counts: dict[str, int] = {}
        self.workers: dict[str, Worker] = {}
        self.assigned: dict[str, tuple[int, ...]] = dict(planned)
        self.on_new_session: Callable[[str, float], None] = lambda node, now_s: None
        self.availability = Availability()
        self._membership = Membership()
        self._sessions: dict[str, int] = {}  # of all nodes of the site
        self._faulty: set[str] = set()  # in their present sessions
        # What follows from the above, computed when it is asked for: see _refresh.
        self._stale = False
        self._online: frozenset[str] = frozenset()
        self._live: dict[str, frozenset[int]] = {}
        self._live_pieces = NO_PIECES

    @property
    def live(self) -> Mapping[str, frozenset[int]]:
        """The workers worth counting on, and the pieces that they can compute now.

        The same object while nothing changes: a caller may compare by identity.
        """
        self._refresh()
        return self._live

    @property
    def live_pieces(self) -> frozenset[int]:
        self._refresh()
        return self._live_pieces

    @property
    def present(self) -> frozenset[str]:
        """Workers that are online and not faulty, whether or not they hold a piece."""
        self._refresh()
        return self._online.intersection(self.workers) - self._faulty

    @property
    def changed(self) -> bool:
        """Whether `live` may differ from what it was when it was last asked for."""
        return self._stale

    def responds(self, node: str) -> bool:
        """Whether the node is online and has not stalled."""
        return node in self._membership.live

    def assign(self, assigned: Mapping[str, tuple[int, ...]]) -> None:
        """Take a new assignment of pieces."""
        if assigned != self.assigned:
            self.assigned = dict(assigned)
            self._stale = True

    # -------------------------------------------------------------- what comes in

    def take_status(self, node: str, status: Status, now_s: float) -> bool:
        """Take the presence of any node, since a Status may come before its offer.

        True where it concerns a worker.
        """
        if node not in self._sessions:
            full = len(self._sessions) >= MAX_NODES and node not in self.planned
            if full or status.state != "online":
                return False
        worker = self.workers.get(node)
        if status.state == "online" and self._sessions.get(node) != status.session:
            self._sessions[node] = status.session
            self._faulty.discard(node)
            if worker is not None:
                self.on_new_session(node, now_s)
        self._membership.admit(node)
        self._membership.take_status(node, status)
        if worker is not None:
            self._stale = True
        return worker is not None

    def take_offer(self, node: str, offer: WorkerOffer) -> bool:
        """Take what a worker holds; True where that changes something."""
        if self.plan not in offer.holds:
            if node in self.planned:
                self._count("wrong_plan")
            if self.workers.pop(node, None) is None:
                return False
            self._stale = True
            return True
        holds = frozenset(offer.holds[self.plan])
        worker = self.workers.get(node)
        if worker is None:
            if len(self.workers) >= MAX_WORKERS and not self._make_room(node):
                return False
            self.workers[node] = Worker(holds, offer.profile)
        elif worker.holds == holds:
            return False
        else:
            worker.holds = holds
        self._stale = True
        return True

    def adopt_presence(self, other: WorkerPool, now_s: float) -> None:
        """Take over who is online, who is faulty and how all have done; what they hold of this plan
        they offer themselves."""
        self.availability = other.availability
        self._sessions = dict(other._sessions)
        for node in other._membership.known:
            session = other._sessions.get(node, 0)
            online = node in other._membership.online
            status = Status("worker", session, "online" if online else "lost")
            self.take_status(node, status, now_s)
        self._faulty |= other._faulty

    def disconnect(self) -> None:
        """Nothing is known of anybody without the broker."""
        self._membership = Membership()
        self.availability.pause()
        self._stale = True

    def observe(self, now_s: float) -> None:
        """Note which workers can be counted on now; to be called at regular times."""
        known = self._membership.known
        names = [name for name in {*self.planned, *self.workers} if name in known]
        up = {name for name in names if self.responds(name)}
        up -= self._faulty
        self.availability.observe({name: name in up for name in names}, now_s)

    def note_report(self, node: str) -> bool:
        """A worker reported in time; True where it is worth counting on again.

        Presence comes from Status alone: a result that was on its way when its worker died brings
        nobody back.
        """
        self._refresh()
        if node not in self._online:
            return False
        self._membership.note_report(node)
        if node in self._live:
            return False
        self._stale = True
        return True

    def note_misses(self, nodes: Iterable[str], now_s: float) -> bool:
        """A task ended without these; True where somebody is no longer worth counting on."""
        nodes = list(nodes)
        for node in nodes:
            if node in self.workers:
                self.workers[node].missed += 1
        self._membership.note_misses(nodes, now_s)
        if self._live.keys() <= self._membership.live:
            return False
        self._stale = True
        return True

    def quarantine(self, nodes: Collection[str]) -> bool:
        """Count on these no more in this session; True where one of them was counted on."""
        found = {node for node in nodes if node in self.workers} - self._faulty
        self._faulty |= found
        for _ in found:
            self._count("workers_faulty")
            self._stale = True
        return bool(found)

    def is_faulty(self, node: str) -> bool:
        """Whether it gave a wrong result in its present session."""
        return node in self._faulty

    def probe(self, now_s: float) -> bool:
        """Whether to ask those who stalled once more, while nothing else is asked."""
        stalled = [name for name in self.assigned if name not in self.live]
        asked = [name for name in stalled if self._membership.probe(name, now_s)]
        return bool(asked)

    # --------------------------------------------------------------------- states

    def health(self, name: str) -> Health:
        self._refresh()
        if name in self._faulty:
            return Health.FAULTY
        if name not in self._online:
            return Health.LOST
        if name in self._live:
            return Health.LIVE
        return Health.LOADING if self.responds(name) else Health.STALLED

    def states(self) -> dict[str, WorkerState]:
        """The planned workers and all that offer, as many as a message shows."""
        names = sorted({*self.planned, *self.workers})[:MAX_PIECES]
        return {name: self._state(name) for name in names}

    def _state(self, name: str) -> WorkerState:
        worker = self.workers.get(name, Worker())
        observed = self.availability.read(name)
        return WorkerState(
            self.health(name).value,
            list(self.assigned.get(name, ())),
            name in self.planned,
            worker.answered,
            worker.used,
            worker.late,
            worker.missed,
            1e3 * worker.latency_s,
            observed.outage,
            observed.seconds,
        )

    def _refresh(self) -> None:
        if not self._stale:
            return
        self._stale = False
        self._online = self._membership.online
        responding, live = self._membership.live, {}
        for name, worker in self.workers.items():
            if name in responding and name not in self._faulty:
                ready = worker.holds.intersection(self.assigned.get(name, ()))
                if ready:
                    live[name] = ready
        if live != self._live:
            self._live = live
            self._live_pieces = NO_PIECES.union(*live.values())

    # --------------------------------------------------------------------- bounds

    def _make_room(self, node: str) -> bool:
        """Forget a worker that is of no use: one that is away, else one that never answered."""
        if node in self.planned:
            return True
        useless = None
        for name, worker in self.workers.items():
            if name in self.planned or name in self.assigned:
                continue
            if not self.responds(name):
                useless = name
                break
            if useless is None and not worker.answered:
                useless = name
        return useless is not None and self.workers.pop(useless, None) is not None

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def smooth(average: float, value: float) -> float:
    """Exponential average; the first value counts whole."""
    return value if not average else average + SMOOTHING * (value - average)
