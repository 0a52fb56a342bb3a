"""A node of the simulation: the host of its machine, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import Plan, find_base
from ddnn.core.section import Arrays, Section
from ddnn.core.site_time import SiteTime
from ddnn.exits.answers import choose_better
from ddnn.protocol.machine import (
    Call,
    Captured,
    Compute,
    Computed,
    Event,
    Forget,
    Keep,
    KeepTime,
    Load,
    Loaded,
    Log,
    Machine,
    Now,
    PlanRead,
    Publish,
    ReadPlan,
    Received,
    Returned,
    Save,
    Saved,
    SectionName,
    Subscribe,
    Tick,
    Unload,
    UseBundle,
)
from ddnn.protocol.messages import Answer
from ddnn.runtime.effects import perform
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Cores, Costs, Lane, Link, Urgency, VirtualTime
from ddnn.runtime.packets import Packet, pack
from ddnn.runtime.simulated_network import Hops

WALL_S = 1_700_000_000.0  # wall time at virtual time 0

Build = Callable[[list[Answer]], Machine]


@dataclass(slots=True)
class Journal:
    """The record of a run: virtual times, names of nodes, and what the nodes did."""

    answers: list[tuple[float, str, Answer]] = field(default_factory=list)
    store: dict[tuple[str, int], Answer] = field(default_factory=dict)  # by site and sample
    logs: list[tuple[float, str, Log]] = field(default_factory=list)
    loaded: list[tuple[float, str, SectionName]] = field(default_factory=list)  # sections
    failures: list[str] = field(default_factory=list)  # exceptions of machines; must stay empty
    handled: int = 0  # events


class Surroundings(Protocol):
    """The interface of the simulation to its nodes."""

    time: VirtualTime
    journal: Journal
    hops: Hops

    def send(self, node: SimulatedNode, packet: Packet) -> None:
        """Send a message to the broker."""
        ...

    def subscribe(self, node: SimulatedNode, filters: Sequence[str]) -> None:
        """Add topic filters to those of a connected node."""
        ...

    def crash(self, name: str) -> None: ...


class SimulatedNode:
    """Runs a machine; performs its effects (see ddnn.runtime.effects.Host)."""

    def __init__(
        self,
        surroundings: Surroundings,
        identity: Identity,
        build: Build,
        sections: Mapping[SectionName, Section],
        *,
        device: DeviceProfile | None,
        costs: Costs,
        cores: Cores,
        wall_offset_s: float,
    ) -> None:
        self.identity, self.sections, self.device, self.costs = identity, sections, device, costs
        self.name = f"{identity.site}/{identity.node}"
        self.machine: Machine | None = None  # None: not running
        self.session = 0
        self.connected = self.stalled = False
        self.kept: dict[int, Answer] = {}  # its disk
        self.kept_time: SiteTime | None = None  # on it, too
        self.plans: dict[str, Plan] = {}  # also on its disk
        self.crash_after: int | None = None  # events until it crashes
        self.sent_s = 0.0  # when its last message of state (QoS 1) reaches the broker
        self.received_s = 0.0  # when the last one for it arrives
        self.uplink = Link(device.uplink_bits_per_s if device else None)
        self.downlink = Link(device.downlink_bits_per_s if device else None)
        self._around, self._build, self._cores = surroundings, build, cores
        self.wall_offset_s = wall_offset_s
        self._lane = Lane(surroundings.time, cores)
        self._waiting: list[Event] = []  # arrived while the node was stalled
        self._tick_s: float | None = None  # the Tick that is scheduled

    # ---------------------------------------------------------------- lifecycle

    def start(self) -> None:
        self.machine = self._build(list(self.kept.values()))
        self.stalled = False

    def stop(self) -> None:
        """End the process: everything but the disk is lost."""
        self.machine = None
        self._waiting.clear()
        self._tick_s = self.crash_after = None
        self._lane = Lane(self._around.time, self._cores)

    def resume(self) -> None:
        """Handle the events that arrived while the node was stalled."""
        self.stalled = False
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            self.take(event)

    # ------------------------------------------------------------------- events

    def take(self, event: Event) -> None:
        """Take an event, which the machine handles when the CPU is free."""
        if self.machine is None:
            return
        if self.stalled:
            self._waiting.append(event)
            return
        busy_s = self.costs.receive_s if isinstance(event, Received | Captured) else 0.0
        self._work(busy_s, lambda: self._handle(event))

    def _work(
        self, seconds: float, action: Callable[[], None], urgency: Urgency = Urgency.MACHINE
    ) -> None:
        """Call `action` after so much work, unless the process has ended by then."""
        machine = self.machine
        self._lane.run(seconds, lambda: action() if self.machine is machine else None, urgency)

    def _handle(self, event: Event) -> None:
        machine, journal, now_s = self.machine, self._around.journal, self._around.time.now_s
        if machine is None:
            return
        if self.stalled:
            self._waiting.append(event)
            return
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                self._around.crash(self.name)
                return
        journal.handled += 1
        try:
            effects = machine.handle(event, Now(now_s, WALL_S + now_s + self.wall_offset_s))
        except Exception as error:  # recorded, so that a test can report it
            journal.failures.append(f"{self.name}: {type(error).__name__}: {error!r}")
            return
        for effect in effects:
            perform(effect, self)
        self._schedule_tick(machine)

    def _schedule_tick(self, machine: Machine) -> None:
        due_s = machine.deadline_s()
        if due_s is None or (self._tick_s is not None and self._tick_s <= due_s):
            return
        self._tick_s = due_s = max(due_s, self._around.time.now_s)

        def tick() -> None:
            if self._tick_s == due_s:
                self._tick_s = None
                self.take(Tick())

        self._around.time.at(due_s, tick)

    # ------------------------------------------------------------------ effects

    def publish(self, effect: Publish) -> None:
        packet = pack(effect.topic, effect.message)
        if self.costs.send_s:
            self._work(self.costs.send_s, lambda: self._around.send(self, packet))
        else:  # as in the loop, at once: not behind the messages that wait to be handled
            self._around.send(self, packet)

    def compute(self, effect: Compute) -> None:
        seconds = self.costs.find_section_s(effect.section, self.device)
        computed = Computed(effect.job, self._run_section(effect))
        urgency = Urgency.of_section(seconds, effect.lent)
        self._work(seconds, partial(self.take, computed), urgency)

    def _run_section(self, effect: Compute) -> Arrays | None:
        try:
            return self.sections[effect.section](effect.inputs)
        except Exception as error:  # as in the loop: the machine must get a result
            self.log(Log("error", "section %s failed: %r", (effect.section, error)))
            return None

    def call(self, effect: Call) -> None:
        seconds = self.costs.find_call_s(effect.job)
        try:
            returned = Returned(effect.job, effect.function(), seconds)
        except Exception as error:  # as in the loop: the machine must get a result
            text = f"{type(error).__name__}: {error}"
            self.log(Log("error", "%s failed: %s", (effect.job, text)))
            returned = Returned(effect.job, None, seconds, text)
        urgency = Urgency.LENT if effect.lent else Urgency.OWN
        self._work(seconds, partial(self.take, returned), urgency)

    def load(self, effect: Load) -> None:
        self._work(
            self.costs.any_section_s, lambda: self._finish_load(effect.section), Urgency.LENT
        )

    def _finish_load(self, section: SectionName) -> None:
        self._around.journal.loaded.append((self._around.time.now_s, self.name, section))
        self.take(Loaded(section, section in self.sections))

    def read_plan(self, effect: ReadPlan) -> None:
        found = self.plans.get(find_base(effect.id))
        read = PlanRead(effect.id, None if found is None else found.rename(effect.id))
        self._work(self.costs.any_section_s, lambda: self.take(read), Urgency.LENT)

    def subscribe(self, effect: Subscribe) -> None:
        self._around.subscribe(self, effect.filters)

    def unload(self, effect: Unload) -> None:
        """Do nothing: the simulation does not limit memory."""

    def keep(self, effect: Keep) -> None:
        answer = effect.answer
        self._around.journal.answers.append((self._around.time.now_s, self.name, answer))
        self.kept[answer.sample] = answer

    def forget(self, effect: Forget) -> None:
        for sample in effect.samples:
            self.kept.pop(sample, None)

    def keep_time(self, effect: KeepTime) -> None:
        self.kept_time = effect.time

    def save(self, effect: Save) -> None:
        store = self._around.journal.store
        for site, answer in effect.answers:
            old = store.get((site, answer.sample))
            store[site, answer.sample] = choose_better(old, answer) if old else answer
        self._around.hops.hop(lambda: self.take(Saved(effect.answers)))

    def use_bundle(self, effect: UseBundle) -> None:
        self.identity = replace(self.identity, bundle=effect.bundle)
        if self.connected:
            self._around.send(self, self.identity.make_status("online", self.session))

    def log(self, effect: Log) -> None:
        self._around.journal.logs.append((self._around.time.now_s, self.name, effect))
