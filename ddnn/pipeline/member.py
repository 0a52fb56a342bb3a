"""The part of a node that holds a stage: it follows the central node's commands.

    state      signal     next
    IDLE       HALT       HALTED
    HALTED     HALT       HALTED       a later term
    HALTED     HOLD       HOLDING      fetch what is missing, then build the stage
    HOLDING    HALT       HALTED       another node was lost meanwhile
    HOLDING    FAIL       HALTED       a copy is gone, or the stage cannot be built
    HOLDING    BUILT      READY
    READY      HALT       HALTED
    READY      START      RUNNING
    RUNNING    HALT       HALTED
    RUNNING    FAIL       HALTED       an operation failed
    HALTED     RELEASE    IDLE
    HOLDING    RELEASE    IDLE
    READY      RELEASE    IDLE
    RUNNING    RELEASE    IDLE
    IDLE       RELEASE    IDLE

The stage of the term before is kept until the next one starts, since others may need its layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from ddnn.errors import LocalProtocolError
from ddnn.machines.states import advance
from ddnn.pipeline.blobs import unpack_arrays
from ddnn.pipeline.exchange import Exchange, ReadJob, Sent
from ddnn.pipeline.runner import Data, Place, StageJob, StageRunner
from ddnn.pipeline.sources import Copy
from ddnn.pipeline.stage import FindFactory, LayerState, Stage
from ddnn.pipeline.transfers import Key
from ddnn.protocol.machine import Call, Effect, Log, Now, Publish, Received, Returned
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import (
    TrainCommand,
    TrainFetch,
    TrainFlow,
    TrainMessage,
    TrainPart,
    TrainReply,
    TrainReport,
)


class State(Enum):
    """The states of a member."""

    IDLE = auto()
    HALTED = auto()
    HOLDING = auto()
    READY = auto()
    RUNNING = auto()


class Signal(Enum):
    """What moves a member from one state to the next."""

    HALT = auto()
    HOLD = auto()
    BUILT = auto()
    START = auto()
    FAIL = auto()
    RELEASE = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.IDLE, Signal.HALT): State.HALTED,
    (State.HALTED, Signal.HALT): State.HALTED,
    (State.HALTED, Signal.HOLD): State.HOLDING,
    (State.HOLDING, Signal.HALT): State.HALTED,
    (State.HOLDING, Signal.FAIL): State.HALTED,
    (State.HOLDING, Signal.BUILT): State.READY,
    (State.READY, Signal.HALT): State.HALTED,
    (State.READY, Signal.START): State.RUNNING,
    (State.RUNNING, Signal.HALT): State.HALTED,
    (State.RUNNING, Signal.FAIL): State.HALTED,
    (State.HALTED, Signal.RELEASE): State.IDLE,
    (State.HOLDING, Signal.RELEASE): State.IDLE,
    (State.READY, Signal.RELEASE): State.IDLE,
    (State.RUNNING, Signal.RELEASE): State.IDLE,
    (State.IDLE, Signal.RELEASE): State.IDLE,
}

KINDS = {
    TrainFlow: Kind.TRAIN_FLOW,
    TrainFetch: Kind.TRAIN_FETCH,
    TrainPart: Kind.TRAIN_PART,
    TrainReply: Kind.TRAIN_REPLY,
    TrainReport: Kind.TRAIN_REPORT,
}


class BuildJob(NamedTuple):
    """The token of the Call that builds a stage."""

    run: str
    term: int
    start: int
    stop: int


class Member:
    """Holds a stage. Every method returns effects; see ddnn.protocol.machine."""

    def __init__(
        self,
        site: str,
        node: str,
        find_factory: FindFactory,
        incarnation: int,
        data: Data | None = None,
    ) -> None:
        self.site, self.node, self.incarnation = site, node, incarnation
        self.state = State.IDLE
        self.is_central_lost = False
        self.run, self.term, self.central = "", 0, ""
        self.exchange = Exchange(node)
        self.runner: StageRunner | None = None  # of the term that runs or ran last
        self.counts: dict[str, int] = {}
        self._find_factory, self._data = find_factory, data
        self._place: Place | None = None  # of the term that is being prepared
        self._next: StageRunner | None = None  # built, not started
        self._holding: TrainCommand | None = None
        self._missing: set[Key] = set()
        self._unanswered: TrainCommand | None = None  # a halt, until the operation has ended

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, f"member {self.node}")

    @property
    def gauges(self) -> dict[str, float]:
        return self.runner.gauges if self.runner and self.state is State.RUNNING else {}

    @property
    def is_computing(self) -> bool:
        """Whether an operation runs here, or a stage is built: it does end."""
        runner = self.runner
        builds = self.state is State.HOLDING and not self._missing
        return builds or (runner is not None and runner.busy is not None)

    def deadline_s(self) -> float | None:
        return self.exchange.fetcher.due_s()

    # -------------------------------------------------------------------- events

    def handle(self, event: object, now: Now) -> list[Effect]:
        """Take an event that concerns this node; others are ignored."""
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, _, self.node), TrainCommand() as command):
                effects = self._follow(command)
            case Received(Topic(_, _, self.node), TrainFlow() as flow):
                self._take_flow(flow)
            case Received(Topic(_, _, self.node), TrainFetch() as fetch):
                running = self.state is State.RUNNING
                effects = self._send(self.exchange.serve(fetch, self.runner, running))
            case Received(Topic(_, _, self.node), TrainPart() as part):
                effects = self._take_part(part, now)
            case Returned(StageJob() as job):
                effects = self._finish(job, event)
            case Returned(BuildJob() as job):
                effects = self._take_built(job, event)
            case Returned(ReadJob() as job):
                effects = self._send(self.exchange.take_read(job, event.value))
        effects += [self.post(*asked) for asked in self.exchange.fetcher.ask(now.monotonic_s)]
        if self.state is State.RUNNING and self.runner is not None:
            effects += filter(None, [self.runner.next_call()])
        return effects

    def post(self, to: str, message: TrainMessage) -> Publish:
        return Publish(Topic(self.site, KINDS[type(message)], to), message)

    # ------------------------------------------------------------------- commands

    def _follow(self, command: TrainCommand) -> list[Effect]:
        if command.run != self.run and command.action in ("halt", "probe"):
            self._join(command)
        if command.run != self.run:
            return []
        if command.term < self.term:
            return [self._reply(command, error=f"term {command.term} is over")]
        match command.action:
            case "probe":
                ok = self.state is State.RUNNING and command.term == self.term
                return [self._reply(command, "" if ok else self.state.name)]
            case "halt":
                return self._halt(command)
            case "hold":
                return self._hold(command)
            case "start":
                return self._start(command)
            case "drain" if self.state is State.RUNNING and self.runner is not None:
                self.runner.end = max(command.number, self.runner.forwards)
                return []
            case "resend" if self.state is State.RUNNING and self.runner is not None:
                return [self.post(to, message) for to, message in self.runner.resend()]
            case "release":
                self._release()
        return []

    def _join(self, command: TrainCommand) -> None:
        """Follow another run, unless one is at work whose central node is another and is there."""
        is_other = command.sender != self.central and not self.is_central_lost
        if self.state is State.RUNNING and is_other:
            return
        self._release()
        self.is_central_lost = False
        self.run, self.central, self.term = command.run, command.sender, 0

    def _release(self) -> None:
        self.move(Signal.RELEASE)
        self.exchange.clear()
        self.runner = self._place = self._next = self._unanswered = None
        self._missing.clear()

    def _halt(self, command: TrainCommand) -> list[Effect]:
        if command.term > self.term:
            self.move(Signal.HALT)
            self.term, self.central = command.term, command.sender
            self.exchange.stop()
            self._missing.clear()
            self._place = self._next = None
        elif self.state is not State.HALTED:
            return []  # repeated, or late: this term has gone on
        self._unanswered = command
        return self._answer_halt()

    def _answer_halt(self) -> list[Effect]:
        command = self._unanswered
        if command is None or (self.runner is not None and self.runner.busy is not None):
            return []  # what is held is known when the operation has ended
        self._unanswered = None
        return [self._reply(command, "", self.exchange.list_copies(self.runner))]

    def _reply(
        self, command: TrainCommand, error: str = "", copies: Sequence[Copy] = ()
    ) -> Publish:
        return self.post(command.sender, make_reply(self, command, error, copies))

    # --------------------------------------------------------------- the next stage

    def _hold(self, command: TrainCommand) -> list[Effect]:
        assignment = command.assignment
        if command.term != self.term or assignment is None or self.node not in assignment.nodes:
            return []
        if self.state in (State.READY, State.RUNNING):
            return [self._reply(command)]
        if self.state is not State.HALTED or (self.runner is not None and self.runner.busy):
            return []  # at work on it, or soon ready to be
        self.move(Signal.HOLD)
        index = assignment.nodes.index(self.node)
        self._place = Place(self.node, command.sender, self.term, index, assignment)
        self._holding = command
        self._missing = self.exchange.fetch_sources(assignment, self.runner)
        return self._build()

    def _build(self) -> list[Effect]:
        place = self._place
        if place is None or self._missing or self.state is not State.HOLDING:
            return []
        try:
            blobs, live = self.exchange.find_states(place.assignment, self.runner)
        except LocalProtocolError as error:
            return self._refuse(str(error))
        function = partial(build_stage, self._find_factory, place, blobs, live)
        return [Call(self._make_build_job(place), function)]

    def _make_build_job(self, place: Place) -> BuildJob:
        return BuildJob(self.run, self.term, *place.assignment.ranges[place.index])

    def _refuse(self, error: str) -> list[Effect]:
        """The layers of the next stage are not to be had."""
        self.move(Signal.FAIL)
        self._missing.clear()
        return [self._reply(self._holding, error)] if self._holding is not None else []

    def _take_built(self, job: BuildJob, returned: Returned) -> list[Effect]:
        place, command = self._place, self._holding
        if self.state is not State.HOLDING or not (place and command):
            return []
        if job != self._make_build_job(place):  # of an earlier term, or of another run
            return []
        if returned.error:
            return self._refuse(returned.error)
        self.move(Signal.BUILT)
        self._next = StageRunner(place, returned.value, self._data)
        return [self._reply(command)]

    def _start(self, command: TrainCommand) -> list[Effect]:
        if command.term != self.term or self.state not in (State.READY, State.RUNNING):
            return []
        if self.state is State.READY and self._next is not None:
            self.move(Signal.START)
            self.runner, self._next = self._next, None
            if self.runner.place.assignment.consistent:
                self.exchange.store.drop_after(self.runner.version, self.term)
        return [self._reply(command)]

    # ------------------------------------------------------------------ operations

    def _take_flow(self, flow: TrainFlow) -> None:
        for runner in (self._next, self.runner):
            if runner is not None and runner.place.term == flow.term:
                runner.take(flow)
                return
        self.counts["flows_late"] = self.counts.get("flows_late", 0) + 1

    def _finish(self, job: StageJob, returned: Returned) -> list[Effect]:
        runner = self.runner
        if runner is None or job != runner.busy:
            return []
        if returned.error:
            return self._fail(runner, f"{job.work} of batch {job.batch}: {returned.error}")
        runner.rate_bytes_per_s = self.exchange.fetcher.rate_bytes_per_s
        effects: list[Effect] = [
            self.post(to, message) for to, message in runner.finish(job, returned)
        ]
        if job.work == "copy":
            keep_all = self.node == self.central
            sent = self.exchange.keep_snapshot(runner, returned.value, keep_all)
            effects += self._send(sent)
        return effects + self._answer_halt()

    def _fail(self, runner: StageRunner, error: str) -> list[Effect]:
        """An operation failed: the central node must arrange the layers without this node."""
        runner.busy = None
        effects: list[Effect] = [Log("error", "training stops here: %s", (error,))]
        if self.state is State.RUNNING:
            self.move(Signal.FAIL)
            command = TrainCommand(self.central, self.run, self.term, "start")
            effects.append(self._reply(command, error))
        return effects + self._answer_halt()

    def _take_part(self, part: TrainPart, now: Now) -> list[Effect]:
        """Take a part of a copy; build the stage where it was the last one that was missing."""
        fetched = self.exchange.take_part(part, now.monotonic_s)
        if fetched is None or fetched.key not in self._missing:
            return []
        if fetched.blob is None:
            layer, stamp = fetched.key
            return self._refuse(f"{fetched.holder} has no copy of layer {layer} of {tuple(stamp)}")
        self._missing.discard(fetched.key)
        return self._build()

    def _send(self, sent: Sequence[Sent]) -> list[Effect]:
        return [one if isinstance(one, Call) else self.post(*one) for one in sent]


def make_reply(
    member: Member, command: TrainCommand, error: str, copies: Sequence[Copy]
) -> TrainReply:
    """The reply of a member to a command. error: why it cannot be done; "": it is."""
    held = [(c.layer, c.stamp.term, c.stamp.version, int(c.origin)) for c in copies]
    return TrainReply(
        member.node,
        member.run,
        member.term,
        command.action,
        command.number,
        member.incarnation,
        not error,
        error[:500],
        held,
    )


def build_stage(
    find_factory: FindFactory, place: Place, blobs: Mapping[int, bytes], live: Mapping[int, Stage]
) -> Stage:
    """The stage of a place, from copies and from the stage before. Runs in the slow thread."""
    assignment = place.assignment
    factory = find_factory(assignment.network)
    for stage in live.values():
        stage.discard()
    start, stop = assignment.ranges[place.index]
    states: dict[int, LayerState] = {n: unpack_arrays(blob) for n, blob in blobs.items()}
    states |= {layer: stage.read_layer(layer) for layer, stage in live.items()}
    return factory.build(start, stop, states, version=assignment.version, keep=place.kept_versions)
