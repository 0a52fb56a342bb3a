"""Which nodes are present, and which of them are worth waiting for."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.protocol.messages import Status

MISSES_UNTIL_SUSPECT = 2
PROBE_S = 1.0


class Membership:
    """Presence by birth and Last Will, suspicion by silence.

    A node that stalls (SIGSTOP, a hung driver) keeps its connection for a while: after
    `MISSES_UNTIL_SUSPECT` windows that waited for it in vain it is a suspect, and not live until
    it reports in time again. A node that reports only when it is asked is probed: see `probe`.
    """

    def __init__(self, members: Iterable[str] = ()) -> None:
        self._members = set(members)
        self._session: dict[str, int] = {}
        self._online: set[str] = set()
        self._misses: dict[str, int] = {}
        self._probe_at_s: dict[str, float] = {}  # of the suspects
        self._live: frozenset[str] = frozenset()

    @property
    def live(self) -> frozenset[str]:
        """Members that are present and worth waiting for."""
        return self._live

    @property
    def online(self) -> frozenset[str]:
        """Members that are present, whether worth waiting for or not."""
        return frozenset(self._online)

    @property
    def known(self) -> frozenset[str]:
        """Members whose presence was announced, whether they are present or not."""
        return frozenset(self._session)

    def admit(self, node: str) -> None:
        """Add a member, where the members are not known beforehand."""
        self._members.add(node)

    def take_status(self, node: str, status: Status) -> bool:
        """Take a birth, a stop or a Last Will; True where it changed who is live.

        A Will of another session than the present one is of a connection that the node has
        replaced already: it changes nothing.
        """
        if node not in self._members:
            return False
        if status.state == "online":
            if node in self._online and self._session.get(node) == status.session:
                return False  # it is repeated with the statistics
            self._online.add(node)
            self._trust(node)
        elif self._session.get(node, status.session) != status.session:
            return False
        else:
            self._online.discard(node)
        self._session[node] = status.session
        return self._refresh()

    def note_report(self, node: str) -> None:
        """`node` contributed in time: it is present, and no suspect."""
        if node in self._members and (node not in self._online or node in self._misses):
            self._online.add(node)
            self._trust(node)
            self._refresh()

    def note_misses(self, nodes: Iterable[str], now_s: float) -> None:
        """A window closed without these nodes."""
        for node in nodes:
            self._misses[node] = self._misses.get(node, 0) + 1
            if self._misses[node] >= MISSES_UNTIL_SUSPECT:
                self._probe_at_s.setdefault(node, now_s + PROBE_S)
        self._refresh()

    def probe(self, node: str, now_s: float) -> bool:
        """Whether to ask a suspect once more without waiting for it, at most every PROBE_S."""
        if node not in self._online or self._probe_at_s.get(node, now_s + 1) > now_s:
            return False
        self._probe_at_s[node] = now_s + PROBE_S
        return True

    def _trust(self, node: str) -> None:
        self._misses.pop(node, None)
        self._probe_at_s.pop(node, None)

    def _refresh(self) -> bool:
        live = frozenset(self._online - self._probe_at_s.keys())
        changed = live != self._live
        self._live = live
        return changed


class AnyOf:
    """Nodes any of which will do, such as the clouds of a site: true while one is online."""

    LIMIT = 64

    def __init__(self) -> None:
        self._sessions: dict[str, int] = {}  # of those that are online, by site and node

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def take_status(self, node: str, status: Status) -> bool:
        """Take a birth, a stop or a Last Will; True for a birth that is not a repeated one."""
        if status.state == "online":
            if self._sessions.get(node) == status.session:
                return False
            if node in self._sessions or len(self._sessions) < self.LIMIT:
                self._sessions[node] = status.session
            return True
        if self._sessions.get(node) == status.session:
            del self._sessions[node]
        return False

    def clear(self) -> None:
        self._sessions.clear()
