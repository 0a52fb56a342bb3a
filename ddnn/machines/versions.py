"""Several versions of a plan or bundle in one process, while all nodes change to the next one.

A job keeps the version it began with; messages are routed by the version that they name. From a
certain tick on, jobs begin with the next version: all nodes that know the tick switch at the same
sample. A version is freed after its last open job.

    phase      signal     next
    LOADING    LOADED     READY
    READY      SWITCH     CURRENT      from its tick on
    CURRENT    REPLACE    RETIRED      the next version's tick has come
    LOADING    DISCARD    FREED
    READY      DISCARD    FREED
    RETIRED    DRAIN      FREED        no job of it is open
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from ddnn.errors import LocalProtocolError
from ddnn.machines.states import advance

Value = TypeVar("Value")


class Phase(Enum):
    """The states of a version."""

    LOADING = auto()
    READY = auto()
    CURRENT = auto()
    RETIRED = auto()
    FREED = auto()


class Signal(Enum):
    """What moves a version from one phase to the next."""

    LOADED = auto()
    SWITCH = auto()
    REPLACE = auto()
    DISCARD = auto()
    DRAIN = auto()


TRANSITIONS: Mapping[tuple[Phase, Signal], Phase] = {
    (Phase.LOADING, Signal.LOADED): Phase.READY,
    (Phase.READY, Signal.SWITCH): Phase.CURRENT,
    (Phase.CURRENT, Signal.REPLACE): Phase.RETIRED,
    (Phase.LOADING, Signal.DISCARD): Phase.FREED,
    (Phase.READY, Signal.DISCARD): Phase.FREED,
    (Phase.RETIRED, Signal.DRAIN): Phase.FREED,
}


@dataclass(slots=True)
class _Version(Generic[Value]):
    id: str
    value: Value
    phase: Phase = Phase.LOADING
    since: tuple[int, int] = (0, 0)  # first tick of the samples that begin with it, and its turn
    open_jobs: int = 0

    def move(self, signal: Signal) -> None:
        self.phase = advance(TRANSITIONS, self.phase, signal, f"version {self.id}")


class Versions(Generic[Value]):
    """The versions that live in this process. One is current from the start."""

    def __init__(self, version: str, value: Value) -> None:
        self._versions = {version: _Version(version, value, Phase.CURRENT)}

    def __len__(self) -> int:
        """The number of versions that are not freed."""
        return len(self._versions)

    @property
    def live(self) -> dict[str, Value]:
        """All versions that are not freed, by id."""
        return {version.id: version.value for version in self._versions.values()}

    @property
    def current(self) -> str:
        """The version that was switched to last."""
        switched = [v for v in self._versions.values() if v.phase is Phase.CURRENT]
        return max(switched, key=lambda version: version.since).id

    @property
    def next(self) -> str | None:
        """The version that is loading or ready; None: there is none."""
        waiting = (v.id for v in self._versions.values() if v.phase in (Phase.LOADING, Phase.READY))
        return next(waiting, None)

    def is_ready(self, version: str) -> bool:
        return self._versions[version].phase is Phase.READY

    def prepare(self, version: str, value: Value) -> Value | None:
        """Begin to load a further version. Returns the one that it displaces, if there is one:
        only the newest is worth loading. LocalProtocolError where the version is live already."""
        if version in self._versions:
            raise LocalProtocolError(f"version {version} is live already")
        displaced = self.next
        discarded = None if displaced is None else self.discard(displaced)
        self._versions[version] = _Version(version, value)
        return discarded

    def note_loaded(self, version: str) -> None:
        """The version can be used from now on."""
        self._versions[version].move(Signal.LOADED)

    def discard(self, version: str) -> Value:
        """Give a version up that was not switched to."""
        found = self._versions[version]
        found.move(Signal.DISCARD)
        return self._versions.pop(version).value

    def switch(self, version: str, tick: int) -> None:
        """Jobs of samples from `tick` on begin with this version.

        LocalProtocolError where the version is not ready, or a later tick was agreed on before.
        """
        found, latest = self._versions[version], self._versions[self.current].since
        if tick < latest[0]:
            raise LocalProtocolError(f"version {version} from {tick}: another is from {latest[0]}")
        found.move(Signal.SWITCH)
        found.since = tick, latest[1] + 1

    def begin(self, tick: int) -> tuple[str, Value]:
        """The version of a job of this sample, which is open from now on."""
        found = self._of(tick)
        found.open_jobs += 1
        return found.id, found.value

    def find(self, tick: int) -> tuple[str, Value]:
        """The version of a sample."""
        found = self._of(tick)
        return found.id, found.value

    def find_since(self, version: str) -> int:
        """The first tick of the samples that begin with a version."""
        return self._versions[version].since[0]

    def end(self, version: str) -> None:
        """A job of this version has ended."""
        self._versions[version].open_jobs -= 1

    def free(self, tick: int) -> list[tuple[str, Value]]:
        """Take out the versions that samples from `tick` on do not use and no open job uses."""
        current = self._of(tick)
        freed = []
        for version in list(self._versions.values()):
            if version.phase is Phase.CURRENT and version.since < current.since:
                version.move(Signal.REPLACE)
            if version.phase is Phase.RETIRED and version.open_jobs == 0:
                version.move(Signal.DRAIN)
                freed.append((version.id, self._versions.pop(version.id).value))
        return freed

    def _of(self, tick: int) -> _Version[Value]:
        switched = [v for v in self._versions.values() if v.phase in (Phase.CURRENT, Phase.RETIRED)]
        begun = [version for version in switched if version.since[0] <= tick]
        return max(begun or switched, key=lambda version: version.since)
