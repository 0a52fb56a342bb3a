"""A node's part in a roll-out: it fetches the ordered bundle, checks it, and changes to it.

    phase       signal    next
    SETTLED     ORDER     FETCHING    another bundle than the one in use is ordered
    FETCHING    FOUND     LOADING     it is on the node's disk already
    FETCHING    WHOLE     CHECKING    all parts have arrived
    CHECKING    FOUND     LOADING     archive, checksums and golden outputs are right
    LOADING     LOADED    STAGED      all sections of this node can be used
    STAGED      CHANGE    SETTLED     the order names the first sample
    FETCHING    FAIL      FAILED
    CHECKING    FAIL      FAILED
    LOADING     FAIL      FAILED
    FETCHING    END       SETTLED     another bundle is ordered, or the one in use again
    CHECKING    END       SETTLED
    LOADING     END       SETTLED
    STAGED      END       SETTLED
    FAILED      END       SETTLED

The order is signed and retained, the parts are retained: a node that was away finds both. Parts are
fetched one after the other, so that they do not delay what is live on a thin link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal, NamedTuple, Protocol

from ddnn.core.section import BundleKey
from ddnn.errors import LocalProtocolError
from ddnn.machines.states import advance
from ddnn.machines.versioned import Version, VersionedMachine
from ddnn.protocol.machine import (
    Call,
    Connected,
    Effect,
    Event,
    Load,
    Loaded,
    Log,
    Now,
    Publish,
    Received,
    Returned,
    Subscribe,
    Unload,
    UseBundle,
)
from ddnn.protocol.rollout_messages import (
    PART_BYTES,
    BundleOrder,
    BundlePart,
    BundleState,
    RolloutPhase,
)
from ddnn.protocol.topics import Kind, Topic, topic_filter

REPORT_PARTS = 8  # the state is reported once in so many parts
REPEAT_S = 2.0  # and again after this time, while a bundle is made ready
REASON_CHARS = 400


class Phase(Enum):
    """The phases of a node's part."""

    SETTLED = auto()
    FETCHING = auto()
    CHECKING = auto()
    LOADING = auto()
    STAGED = auto()
    FAILED = auto()


class Signal(Enum):
    """What moves a node from one phase to the next."""

    ORDER = auto()
    FOUND = auto()
    WHOLE = auto()
    LOADED = auto()
    CHANGE = auto()
    FAIL = auto()
    END = auto()


TRANSITIONS: Mapping[tuple[Phase, Signal], Phase] = {
    (Phase.SETTLED, Signal.ORDER): Phase.FETCHING,
    (Phase.FETCHING, Signal.FOUND): Phase.LOADING,
    (Phase.FETCHING, Signal.WHOLE): Phase.CHECKING,
    (Phase.CHECKING, Signal.FOUND): Phase.LOADING,
    (Phase.LOADING, Signal.LOADED): Phase.STAGED,
    (Phase.STAGED, Signal.CHANGE): Phase.SETTLED,
    (Phase.FETCHING, Signal.FAIL): Phase.FAILED,
    (Phase.CHECKING, Signal.FAIL): Phase.FAILED,
    (Phase.LOADING, Signal.FAIL): Phase.FAILED,
    (Phase.FETCHING, Signal.END): Phase.SETTLED,
    (Phase.CHECKING, Signal.END): Phase.SETTLED,
    (Phase.LOADING, Signal.END): Phase.SETTLED,
    (Phase.STAGED, Signal.END): Phase.SETTLED,
    (Phase.FAILED, Signal.END): Phase.SETTLED,
}

_SHOWN: Mapping[Phase, RolloutPhase] = {
    Phase.SETTLED: "in use",
    Phase.FETCHING: "fetching",
    Phase.CHECKING: "checking",
    Phase.LOADING: "checking",
    Phase.STAGED: "staged",
    Phase.FAILED: "failed",
}


class Library(Protocol):
    """The bundles on this node's disk. Each method is called in another thread.

    done_until_s: orders that were given until then are done: the node was started with another
    bundle since.
    """

    done_until_s: float

    def find(self, bundle: str) -> Any:
        """The manifest of a bundle that is there and right; None where it is not."""
        ...

    def add(self, order: BundleOrder, archive: bytes) -> Any:
        """Check an archive and write it; returns the manifest. Raises where it cannot be used."""
        ...

    def adopt(self, order: BundleOrder) -> None:
        """After a restart this node uses the bundle of this order."""
        ...


class LibraryJob(NamedTuple):
    """The token of a Call effect: what the library does with a bundle."""

    work: Literal["find", "add", "adopt"]
    bundle: str


@dataclass(slots=True)
class _Candidate:
    """The bundle that is being made ready."""

    order: BundleOrder
    phase: Phase = Phase.SETTLED
    parts: dict[int, bytes] = field(default_factory=dict)  # by number
    version: Version[Any] | None = None
    unloaded: set[str] = field(default_factory=set)  # its sections that are not loaded yet
    reason: str = ""

    @property
    def count(self) -> int:
        """The number of parts of the archive."""
        return -(-self.order.size_bytes // PART_BYTES)

    def move(self, signal: Signal) -> None:
        self.phase = advance(TRANSITIONS, self.phase, signal, f"bundle {self.order.bundle}")


class RolloutNode:
    """Takes the orders of `ddnn rollout`, beside the machine whose bundle they change."""

    def __init__(
        self,
        site: str,
        node: str,
        versions: VersionedMachine[Any],
        make_version: Callable[[str, Any], Version[Any]],
        library: Library,
    ) -> None:
        """make_version: makes the node's machine for a bundle and its manifest, and raises a
        DdnnError where this process cannot change to it."""
        self._site, self._node = site, node
        self._versions, self._make_version, self._library = versions, make_version, library
        self._candidate: _Candidate | None = None
        self._order: BundleOrder | None = None  # the last one
        self._wanted = -1  # the number of the part that is subscribed to
        self._repeat_s: float | None = None
        self.counts: dict[str, int] = {}

    @property
    def gauges(self) -> dict[str, float]:
        return {}

    def subscriptions(self) -> list[str]:
        parts = [self._make_filter()] if self._wanted >= 0 else []
        return [topic_filter(Kind.BUNDLE_ORDER, self._site), *parts]

    def deadline_s(self) -> float | None:
        return self._repeat_s

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects = self._handle(event, now)
        if self._candidate is None or self._candidate.phase is Phase.FAILED:
            self._repeat_s = None
        elif self._repeat_s is None or now.monotonic_s >= self._repeat_s:
            effects = effects if self._repeat_s is None else [*effects, self._report()]
            self._repeat_s = now.monotonic_s + REPEAT_S
        return effects

    def _handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Connected():
                return [self._report()]
            case Received(Topic(_, Kind.BUNDLE_ORDER), BundleOrder() as order):
                return self._take_order(order)
            case Received(Topic(_, Kind.BUNDLE_PART), BundlePart() as part):
                return self._take_part(part)
            case Returned(LibraryJob("find", bundle), manifest):
                return self._take_found(bundle, manifest, now)
            case Returned(LibraryJob("add", bundle), manifest, _, error):
                return self._take_added(bundle, manifest, error, now)
            case Returned(LibraryJob("adopt", bundle), _, _, error) if error:
                text = "after a restart this node does not use bundle %s at once: %s"
                return [Log("error", text, (bundle, error))]
            case Loaded(BundleKey(bundle, section), ok):
                return self._take_loaded(bundle, section, ok, now)
        return []

    # --------------------------------------------------------------------- orders

    def _take_order(self, order: BundleOrder) -> list[Effect]:
        if order.given_at_s <= self._library.done_until_s:
            text = "the order of bundle %s is older than the choice of this node's bundle"
            return [Log("info", text, (order.bundle,)), self._report()]
        candidate = self._candidate
        is_same = candidate is not None and candidate.order.bundle == order.bundle
        self._order = order
        if candidate is not None and is_same and candidate.phase is not Phase.FAILED:
            candidate.order = order
            return self._change()
        effects = self._end() if candidate is not None else []
        if order.bundle == self._versions.current:
            return [*effects, self._report()]
        self._candidate = candidate = _Candidate(order)
        candidate.move(Signal.ORDER)
        find = self._library.find
        text = "bundle %s is ordered in the place of %s"
        return [
            *effects,
            Log("info", text, (order.bundle, self._versions.current)),
            Call(LibraryJob("find", order.bundle), lambda: find(order.bundle), lent=True),
            self._report(),
        ]

    def _end(self) -> list[Effect]:
        """Give the bundle up that was being made ready."""
        candidate, self._candidate, self._wanted = self._candidate, None, -1
        if candidate is None:
            return []
        effects: list[Effect] = []
        if candidate.phase is Phase.STAGED:
            effects = self._versions.discard(candidate.order.bundle)
        elif candidate.version is not None:
            effects = self._unload(candidate)
        candidate.move(Signal.END)
        text = "bundle %s is not ordered any more"
        return [*effects, Log("info", text, (candidate.order.bundle,))]

    def _unload(self, candidate: _Candidate) -> list[Effect]:
        sections = candidate.version.sections if candidate.version else ()
        return [Unload(BundleKey(candidate.order.bundle, section)) for section in sections]

    # ---------------------------------------------------------------------- parts

    def _take_found(self, bundle: str, manifest: Any, now: Now) -> list[Effect]:
        candidate = self._find_candidate(bundle, Phase.FETCHING)
        if candidate is None:
            return []
        if manifest is not None:
            return self._load(candidate, manifest, now)
        if not candidate.count:
            return self._fail("it is not on this node's disk, and the order has no archive")
        self._wanted = 0
        return [Subscribe([self._make_filter()])]

    def _take_part(self, part: BundlePart) -> list[Effect]:
        """Take a part. Others than the wanted one come, too, where an earlier order has subscribed
        to them."""
        candidate = self._find_candidate(part.bundle, Phase.FETCHING)
        if candidate is None or self._wanted < 0 or part.number >= candidate.count:
            return []
        parts = candidate.parts
        parts[part.number] = part.data
        if len(parts) == candidate.count:
            self._wanted = -1
            candidate.move(Signal.WHOLE)
            order, archive = candidate.order, b"".join(parts[n] for n in sorted(parts))
            candidate.parts = {}
            add = self._library.add
            call = Call(LibraryJob("add", order.bundle), lambda: add(order, archive), lent=True)
            return [call, self._report()]
        effects: list[Effect] = []
        if self._wanted in parts:
            self._wanted = next(n for n in range(candidate.count) if n not in parts)
            effects = [Subscribe([self._make_filter()])]
        if len(parts) % REPORT_PARTS == 0:
            effects.append(self._report())
        return effects

    def _make_filter(self) -> str:
        return topic_filter(Kind.BUNDLE_PART, self._site, str(self._wanted))

    # --------------------------------------------------------------------- loading

    def _take_added(self, bundle: str, manifest: Any, error: str, now: Now) -> list[Effect]:
        candidate = self._find_candidate(bundle, Phase.CHECKING)
        if candidate is None:
            return []
        return self._fail(error) if error else self._load(candidate, manifest, now)

    def _load(self, candidate: _Candidate, manifest: Any, now: Now) -> list[Effect]:
        bundle = candidate.order.bundle
        try:
            candidate.version = self._make_version(bundle, manifest)
        except Exception as error:  # of any type: the node goes on with the bundle in use
            return self._fail(str(error))
        candidate.move(Signal.FOUND)
        candidate.unloaded = set(candidate.version.sections)
        keys: Sequence[BundleKey] = [BundleKey(bundle, name) for name in candidate.unloaded]
        return [*map(Load, keys), self._report()] if keys else self._finish(candidate, now)

    def _take_loaded(self, bundle: str, section: str, ok: bool, now: Now) -> list[Effect]:
        candidate = self._find_candidate(bundle, Phase.LOADING)
        if candidate is None:
            return []
        if not ok:
            return [*self._fail(f"section {section} cannot be loaded"), *self._unload(candidate)]
        candidate.unloaded.discard(section)
        return self._finish(candidate, now) if not candidate.unloaded else []

    def _finish(self, candidate: _Candidate, now: Now) -> list[Effect]:
        """All is ready."""
        if candidate.version is None:
            raise LocalProtocolError("a bundle without a machine is not ready")
        candidate.move(Signal.LOADED)
        effects = self._versions.add(candidate.version, now)
        return [*effects, *self._change()]

    def _change(self) -> list[Effect]:
        """Change to the bundle, if it is ready and the order says from which sample on."""
        candidate = self._candidate
        if candidate is None or candidate.phase is not Phase.STAGED:
            return [self._report()]
        order = candidate.order
        if order.since is None:
            return [self._report()]
        before = self._versions.current
        self._versions.switch(order.bundle, order.since)
        candidate.move(Signal.CHANGE)
        self._candidate = None
        self.counts["bundles_changed"] = self.counts.get("bundles_changed", 0) + 1
        text = "bundle %s takes the place of %s from sample %d on"
        adopt = self._library.adopt
        return [
            Log("info", text, (order.bundle, before, order.since)),
            Call(LibraryJob("adopt", order.bundle), lambda: adopt(order), lent=True),
            UseBundle(order.bundle),
            self._report(),
        ]

    # ---------------------------------------------------------------------- report

    def _find_candidate(self, bundle: str, phase: Phase) -> _Candidate | None:
        candidate = self._candidate
        if candidate is None or candidate.order.bundle != bundle or candidate.phase is not phase:
            return None
        return candidate

    def _fail(self, reason: str) -> list[Effect]:
        candidate = self._candidate
        if candidate is None:
            return []
        candidate.move(Signal.FAIL)
        candidate.parts, candidate.reason, self._wanted = {}, reason[:REASON_CHARS], -1
        self.counts["bundles_failed"] = self.counts.get("bundles_failed", 0) + 1
        text = "bundle %s is not used: %s"
        return [Log("error", text, (candidate.order.bundle, reason)), self._report()]

    def _report(self) -> Publish:
        candidate, in_use = self._candidate, self._versions.current
        if candidate is None:
            state = BundleState(in_use, self._order.bundle if self._order else "", "in use")
        else:
            parts = len(candidate.parts)
            shown = _SHOWN[candidate.phase]
            state = BundleState(in_use, candidate.order.bundle, shown, parts, candidate.reason)
        return Publish(Topic(self._site, Kind.BUNDLE_STATE, self._node), state)
