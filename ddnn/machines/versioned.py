"""A machine for each bundle that a node runs: one or, while a site changes to the next one, two.

A sample belongs to one bundle: all nodes change at the same sample, so that scores and features of
two bundles never meet. What names a bundle goes to the machine of that bundle, a frame to that of
its sample, everything else to all of them. The machines of a node share what outlives a bundle, as
the outbox; that is not in them.

The sections of the first bundle have their own names in effects, those of later ones `BundleKey`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from ddnn.core.section import BundleKey
from ddnn.machines.versions import Versions
from ddnn.protocol.machine import (
    Captured,
    Compute,
    Computed,
    Connected,
    Disconnected,
    Effect,
    Event,
    Machine,
    Now,
    Received,
    Unload,
    find_earliest,
)
from ddnn.protocol.messages import Status, Thresholds
from ddnn.protocol.topics import Topic

MachineType = TypeVar("MachineType", bound=Machine)
Key = TypeVar("Key", bound=Hashable)

MAX_STATUSES = 1024  # of nodes, for the machine of the next bundle
MAX_COMMANDS = 16  # of thresholds, for the machine of their bundle when it is in use again


class Version(NamedTuple, Generic[MachineType]):
    """A bundle's machine, and the sections that it runs."""

    bundle: str
    machine: MachineType
    sections: Sequence[str]


class VersionJob(NamedTuple):
    """The token of a Compute effect of a later bundle: the bundle and the machine's own token."""

    bundle: str
    job: Hashable


@dataclass(slots=True)
class _Known:
    """What a machine that is added later must know."""

    is_connected: bool = False
    statuses: dict[Topic, Received] = field(default_factory=dict)
    thresholds: dict[str, Received] = field(default_factory=dict)  # by bundle

    def list_events(self, bundle: str) -> list[Event]:
        commanded = [self.thresholds[bundle]] if bundle in self.thresholds else []
        return [*([Connected()] if self.is_connected else []), *self.statuses.values(), *commanded]

    def note(self, event: Event) -> None:
        match event:
            case Connected():
                self.is_connected = True
            case Disconnected():
                self.is_connected = False
                self.statuses.clear()
            case Received(topic, Status()):
                _keep(self.statuses, topic, event, MAX_STATUSES)
            case Received(_, Thresholds(bundle)):
                _keep(self.thresholds, bundle, event, MAX_COMMANDS)


def _keep(newest: dict[Key, Received], key: Key, event: Received, most: int) -> None:
    """Keep the newest event of each key, and of the keys those that were heard of last."""
    newest.pop(key, None)
    newest[key] = event
    if len(newest) > most:
        del newest[next(iter(newest))]


class VersionedMachine(Generic[MachineType]):
    """The machines of the bundles that are in use."""

    def __init__(self, first: Version[MachineType], hold_s: float) -> None:
        """hold_s: how long after the change samples of the bundle before may be open."""
        self._first: Version[MachineType] | None = first
        self._hold_s = hold_s
        self._versions = Versions(first.bundle, first)
        self._next_since: int | None = None  # of a bundle of which no sample has been seen yet
        self._until_s: float | None = None  # when the bundle before is freed
        self._known = _Known()
        self._own_counts: dict[str, int] = {}

    @property
    def current(self) -> str:
        """The bundle that was changed to last."""
        return self._versions.current

    @property
    def machine(self) -> MachineType:
        """The machine of the bundle that was changed to last."""
        return self._versions.live[self.current].machine

    @property
    def counts(self) -> Mapping[str, int]:
        merged = dict(self._own_counts)
        for version in self._list_versions():
            for name, count in version.machine.counts.items():
                merged[name] = merged.get(name, 0) + count
        return merged

    @property
    def gauges(self) -> Mapping[str, float]:
        """Those of the bundle that was changed to last."""
        return self.machine.gauges

    def subscriptions(self) -> list[str]:
        return sorted({topic for v in self._list_versions() for topic in v.machine.subscriptions()})

    def deadline_s(self) -> float | None:
        if (only := self._find_only()) is not None:
            return only.machine.deadline_s()
        times = [version.machine.deadline_s() for version in self._list_versions()]
        return find_earliest([*times, self._until_s])

    # ------------------------------------------------------------------- versions

    def add(self, version: Version[MachineType], now: Now) -> list[Effect]:
        """Take a bundle whose sections are loaded; `switch` says from which sample on."""
        effects: list[Effect] = []
        if version.bundle in self._versions.live:  # the one before, back at once
            effects = self._free()
        displaced = self._versions.prepare(version.bundle, version)
        effects += self._drop(displaced) if displaced else []
        loaded = {self._name(version, section) for section in version.sections}
        effects = [e for e in effects if not (isinstance(e, Unload) and e.section in loaded)]
        self._versions.note_loaded(version.bundle)
        for event in self._known.list_events(version.bundle):
            effects += self._handle(version, event, now)
        return effects

    def discard(self, bundle: str) -> list[Effect]:
        """Give up a bundle that was not changed to."""
        return self._drop(self._versions.discard(bundle))

    def switch(self, bundle: str, since: int) -> None:
        """Samples from `since` on belong to this bundle, at the earliest those of the present one.

        Where no sample is captured, an order names the first one there is.
        """
        self._next_since = max(since, self._versions.find_since(self.current))
        self._versions.switch(bundle, self._next_since)
        self._until_s = None

    def list_live(self) -> list[str]:
        """The bundles in use, the oldest first."""
        return list(self._versions.live)

    def _find_only(self) -> Version[MachineType] | None:
        """The first version where there is no other: without a roll-out there is nothing to choose,
        which every event asks."""
        return self._first if len(self._versions) == 1 else None

    def _list_versions(self) -> list[Version[MachineType]]:
        return list(self._versions.live.values())

    def _note_sample(self, event: Event, now: Now) -> None:
        """Note when the first sample of the newest bundle is seen."""
        if self._next_since is None:
            return
        source = event.message if isinstance(event, Received) else event
        sample = getattr(source, "sample", None)
        if sample is not None and sample >= self._next_since:
            self._next_since, self._until_s = None, now.monotonic_s + self._hold_s

    def _free(self) -> list[Effect]:
        """Free the bundles before: no sample of theirs is open any more."""
        self._until_s = None
        freed = self._versions.free(self._versions.find_since(self.current))
        return [effect for _, version in freed for effect in self._drop(version)]

    def _drop(self, version: Version[MachineType]) -> list[Effect]:
        for name, count in version.machine.counts.items():
            self._own_counts[name] = self._own_counts.get(name, 0) + count
        names = [self._name(version, section) for section in version.sections]
        if version is self._first:
            self._first = None
        return [Unload(name) for name in names]

    # --------------------------------------------------------------------- events

    def handle(self, event: Event, now: Now) -> list[Effect]:
        self._known.note(event)
        self._note_sample(event, now)
        effects: list[Effect] = []
        if self._until_s is not None and now.monotonic_s >= self._until_s:
            effects += self._free()
        if (only := self._find_only()) is not None:
            return [*effects, *only.machine.handle(event, now)]
        for version in self._find_receivers(event):
            effects += self._handle(version, event, now)
        return effects

    def _find_receivers(self, event: Event) -> list[Version[MachineType]]:
        match event:
            case Captured(sample):
                return [self._versions.find(sample)[1]]
            case Computed(VersionJob(bundle)):
                return [v for v in self._list_versions() if v.bundle == bundle]
            case Computed():
                return [v for v in self._list_versions() if v is self._first]
            case Received(_, Status()):  # it names the bundle of another node
                return self._list_versions()
            case Received(_, message) if (named := getattr(message, "bundle", None)) is not None:
                return self._find_named(named, getattr(message, "sample", None))
        return self._list_versions()

    def _find_named(self, bundle: str, sample: int | None) -> list[Version[MachineType]]:
        """The version of this bundle, unless the sample belongs to a later one."""
        live, versions = self._versions.live, self._versions
        if bundle not in live:
            return [live[self.current]]  # which counts it as of a wrong bundle
        owner = bundle if sample is None else versions.find(sample)[0]
        if versions.find_since(owner) > versions.find_since(bundle):
            self._own_counts["wrong_bundle"] = self._own_counts.get("wrong_bundle", 0) + 1
            return []
        return [live[bundle]]

    def _handle(self, version: Version[MachineType], event: Event, now: Now) -> list[Effect]:
        """Let a version handle an event, with its sections and jobs named for its bundle."""
        if isinstance(event, Computed) and isinstance(event.job, VersionJob):
            event = replace(event, job=event.job.job)
        effects = version.machine.handle(event, now)
        if version is self._first:
            return effects
        return [self._mark(version, effect) for effect in effects]

    def _mark(self, version: Version[MachineType], effect: Effect) -> Effect:
        if not isinstance(effect, Compute) or not isinstance(effect.section, str):
            return effect
        job = VersionJob(version.bundle, effect.job)
        return replace(effect, job=job, section=self._name(version, effect.section))

    def _name(self, version: Version[MachineType], section: str) -> str | BundleKey:
        if version is self._first:
            return section
        return BundleKey(version.bundle, section)
