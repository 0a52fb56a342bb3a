"""Whether this process may use the name of its node: of two processes the older one keeps it.

UNCLAIMED ──connect──> CLAIMING ──the own claim is back──> HELD
                          └──another one is online──> CONTESTED ──it does not answer──> HELD
CLAIMING, CONTESTED, HELD ──an older one claims it──> WITHDRAWN

A process publishes a claim at every connect, and again for each claim of another process. Claims
carry the time that a process has run, on a clock that nobody sets. A node that is started again
waits only where its former process is still announced as online, which nobody then confirms.
"""

from __future__ import annotations

from enum import Enum

from ddnn.errors import ConfigError
from ddnn.machines.states import advance
from ddnn.protocol.messages import Status
from ddnn.protocol.node_messages import NameClaim
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.packets import Packet, pack

ANSWER_S = 2.0  # how long another process may take to answer a claim, and this one's to come back
SAME_AGE_S = 10.0  # a message may take longer than the ages of two processes differ
MAX_CLAIMS = 3  # of another process of the same age; then the instances decide


class State(Enum):
    """The states of a name."""

    UNCLAIMED = "unclaimed"
    CLAIMING = "claiming"
    CONTESTED = "contested"
    HELD = "held"
    WITHDRAWN = "withdrawn"


class Signal(Enum):
    """What changes them."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ECHO = "the own claim is back"
    RIVAL = "another process is announced as online"
    SILENCE = "nobody answered in time"
    OLDER = "an older process claims the name"


TRANSITIONS = {
    (State.UNCLAIMED, Signal.CONNECTED): State.CLAIMING,
    (State.CLAIMING, Signal.DISCONNECTED): State.UNCLAIMED,
    (State.CLAIMING, Signal.ECHO): State.HELD,
    (State.CLAIMING, Signal.RIVAL): State.CONTESTED,
    (State.CLAIMING, Signal.SILENCE): State.HELD,
    (State.CLAIMING, Signal.OLDER): State.WITHDRAWN,
    (State.CONTESTED, Signal.DISCONNECTED): State.UNCLAIMED,
    (State.CONTESTED, Signal.SILENCE): State.HELD,
    (State.CONTESTED, Signal.OLDER): State.WITHDRAWN,
    (State.HELD, Signal.OLDER): State.WITHDRAWN,
}


class NodeName:
    """The name of one node, as its process sees it. Without an `instance` it is held at once."""

    def __init__(self, site: str, node: str, instance: int, started_s: float) -> None:
        """started_s: monotonic time at which the process started."""
        self.site, self.node, self._instance = site, node, instance
        self._started_s = started_s
        self.state = State.UNCLAIMED if instance else State.HELD
        self.deadline_s: float | None = None
        self.claim_is_back = False  # whether the broker delivered the claim on this connection
        self._rival = (0, 0)  # instance and claims of the last process of the same age

    @property
    def is_held(self) -> bool:
        return self.state is State.HELD

    @property
    def filters(self) -> list[str]:
        """What to subscribe to before the claim is published."""
        kinds = (Kind.STATUS, Kind.CLAIM) if self._instance else ()
        return [str(Topic(self.site, kind, self.node)) for kind in kinds]

    def make_claim(self, now_s: float) -> Packet | None:
        """The claim of this process; None where it has no instance."""
        if not self._instance:
            return None
        claim = NameClaim(self._instance, now_s - self._started_s)
        return pack(Topic(self.site, Kind.CLAIM, self.node), claim)

    def connect(self, now_s: float) -> None:
        """The broker accepted the connection."""
        self.claim_is_back = False
        if not self.is_held:
            self._take(Signal.CONNECTED)
            self.deadline_s = now_s + ANSWER_S

    def disconnect(self) -> None:
        """The connection is gone."""
        if self.state in (State.CLAIMING, State.CONTESTED):
            self._take(Signal.DISCONNECTED)

    def take_status(self, status: Status) -> None:
        """Take a status of this name: another process may be online."""
        other = status.state == "online" and status.instance != self._instance
        if other and self.state is State.CLAIMING:
            self._take(Signal.RIVAL)

    def take_claim(self, claim: NameClaim, now_s: float) -> bool:
        """Take a claim of this name; True where this process must publish its own again.

        Raises ConfigError where the name belongs to another process.
        """
        if claim.instance == self._instance:
            self.claim_is_back = True
            if self.state is State.CLAIMING:
                self._take(Signal.ECHO)
            return False
        older_s = claim.age_s - (now_s - self._started_s)  # at least: the message took its time
        if older_s > 0 or self._has_lost_draw(claim, older_s):
            self._take(Signal.OLDER)
            raise ConfigError(
                f"another process is node {self.node} of site {self.site}, for {claim.age_s:.0f} s "
                "already; two nodes cannot have one name: stop that one, or give this one another "
                "--node (or --site)"
            )
        return True

    def tick(self, now_s: float) -> bool:
        """Take the time; True where the wait for an answer is over: the name is held."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return False
        self._take(Signal.SILENCE)
        return True

    def _has_lost_draw(self, claim: NameClaim, older_s: float) -> bool:
        """Whether this one of two processes of the same age withdraws, after some claims."""
        if older_s < -SAME_AGE_S:
            return False
        rival, claims = self._rival
        self._rival = (claim.instance, claims + 1 if rival == claim.instance else 1)
        return self._rival[1] >= MAX_CLAIMS and self._instance < claim.instance

    def _take(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, f"the name {self.node}")
        if self.state not in (State.CLAIMING, State.CONTESTED):
            self.deadline_s = None
