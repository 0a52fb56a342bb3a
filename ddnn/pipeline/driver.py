"""Drives a training: arranges the nodes in terms, watches them, and arranges them anew.

    state      signal     next
    GATHERING  GATHERED   PROFILING    enough nodes, and no more came for a while
    PROFILING  PROFILED   HALTING      layers are measured on this node
    HALTING    PLANNED    HOLDING      who holds what is known: the layers are distributed
    HALTING    RESTART    HALTING      no layout fits, or a node knows a later term
    HOLDING    HELD       STARTING     every node has its layers and has built its stage
    HOLDING    RESTART    HALTING      a node was lost, or a copy
    STARTING   STARTED    RUNNING
    STARTING   RESTART    HALTING
    RUNNING    SUSPECT    PROBING      a batch is overdue
    RUNNING    DRAIN      DRAINING     a better layout, or a node wants to leave or to join
    RUNNING    RESTART    HALTING      a node was lost or failed
    RUNNING    END        ENDED
    PROBING    ANSWERED   RUNNING      all are there: a message was lost, and is repeated
    PROBING    RESTART    HALTING
    DRAINING   RESTART    HALTING      no batch is in flight, or a node was lost
    PROFILING  FAIL       FAILED
    HALTING    FAIL       FAILED
    HOLDING    FAIL       FAILED       this node itself fails at its work
    STARTING   FAIL       FAILED
    RUNNING    FAIL       FAILED
    PROBING    FAIL       FAILED
    DRAINING   FAIL       FAILED

Every way from one layout to the next is the same: halt, hold, start, in a new term. A failure on
that way begins it again. Every wait has a deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from typing import NamedTuple

from ddnn.errors import InfeasiblePlanError
from ddnn.machines.states import advance
from ddnn.pipeline.capacity import is_worth_moving
from ddnn.pipeline.collector import Collector, SaveJob
from ddnn.pipeline.member import Member
from ddnn.pipeline.planner import (
    FAILURES_PER_S,
    Arrangement,
    arrange,
    count_moved_bytes,
    make_assignment,
    plan_layout,
)
from ddnn.pipeline.progress import Progress
from ddnn.pipeline.question import Question
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.runner import StageRunner
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.sources import Copy, Origin, Stamp
from ddnn.pipeline.stage import LayerProfile
from ddnn.protocol.machine import Call, Effect, Log, Now, Publish, Received, Returned
from ddnn.protocol.messages import Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import (
    Action,
    TrainAssignment,
    TrainCommand,
    TrainOffer,
    TrainReply,
    TrainReport,
)

ATTEMPTS = 3  # of a node that fails at its work, before the others do without it


class State(Enum):
    """The states of a training."""

    GATHERING = auto()
    PROFILING = auto()
    HALTING = auto()
    HOLDING = auto()
    STARTING = auto()
    RUNNING = auto()
    PROBING = auto()
    DRAINING = auto()
    ENDED = auto()
    FAILED = auto()


class Signal(Enum):
    """What moves a training from one state to the next."""

    GATHERED = auto()
    PROFILED = auto()
    PLANNED = auto()
    HELD = auto()
    STARTED = auto()
    SUSPECT = auto()
    ANSWERED = auto()
    DRAIN = auto()
    RESTART = auto()
    END = auto()
    FAIL = auto()


_WORKING = (State.HOLDING, State.STARTING, State.RUNNING, State.PROBING, State.DRAINING)
TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.GATHERING, Signal.GATHERED): State.PROFILING,
    (State.PROFILING, Signal.PROFILED): State.HALTING,
    (State.HALTING, Signal.PLANNED): State.HOLDING,
    (State.HOLDING, Signal.HELD): State.STARTING,
    (State.STARTING, Signal.STARTED): State.RUNNING,
    (State.RUNNING, Signal.SUSPECT): State.PROBING,
    (State.RUNNING, Signal.DRAIN): State.DRAINING,
    (State.RUNNING, Signal.END): State.ENDED,
    (State.PROBING, Signal.ANSWERED): State.RUNNING,
    **{(state, Signal.RESTART): State.HALTING for state in (State.HALTING, *_WORKING)},
    **{(state, Signal.FAIL): State.FAILED for state in (State.PROFILING, State.HALTING, *_WORKING)},
}


class ProfileJob(NamedTuple):
    """The token of the Call that measures the layers."""

    run: str


class Driver:
    """The decisions of the central node. `member` is its own stage."""

    def __init__(
        self,
        site: str,
        run: str,
        member: Member,
        roster: Roster,
        collector: Collector,
        settings: Settings,
        profile: Callable[[], list[LayerProfile]],
        term: int = 0,
    ) -> None:
        self.site, self.run, self.settings = site, run, settings
        self.member, self.roster, self.collector = member, roster, collector
        self.state, self.term = State.GATHERING, term
        self.progress = Progress(settings)
        self.arrangement: Arrangement | None = None
        self.error = ""  # why it has failed
        self.failures = 0  # nodes lost while they were in use
        self._profile = profile
        self._profiles: list[LayerProfile] = []
        self._question: Question | None = None
        self._number = 0
        self._due_s: float | None = None  # of the state, where no question is open
        self._started_s: float | None = None  # of the training
        self._check_at = 0  # batches at which the layout is compared with the best
        self._is_changed = False  # a node has come or wants to leave
        self._drain_to = 0
        self._failed: Counter[str] = Counter()  # failures of nodes at their work

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, f"training {self.run}")

    @property
    def runner(self) -> StageRunner | None:
        """The central node's own stage in this term; None before it starts."""
        runner = self.member.runner
        return runner if runner is not None and runner.place.term == self.term else None

    def deadline_s(self) -> float | None:
        times = [self._due_s]
        if self._question is not None:
            times.append(self._question.next_s)
        if self.state in (State.RUNNING, State.DRAINING) and self.arrangement is not None:
            times.append(self.progress.due_s(len(self.arrangement.nodes)))
        return min((time_s for time_s in times if time_s is not None), default=None)

    # -------------------------------------------------------------------- events

    def handle(self, event: object, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.TRAIN_OFFER, name), TrainOffer() as offer):
                effects = self._take_offer(name, offer, now)
            case Received(Topic(_, Kind.STATUS, name), Status() as status):
                if self.roster.take_status(name, status):
                    effects = self._lose([name], "is lost", now)
                self._note_change(now)
            case Received(_, TrainReply() as reply) if reply.run == self.run:
                effects = self._take_reply(reply, now)
            case Received(_, TrainReport() as report) if report.term == self.term:
                self._take_report(report)
            case Returned(ProfileJob()):
                effects = self._take_profile(event, now)
            case Returned(SaveJob() as job):
                self.collector.take_saved(job, event)
                if job.ended and self.state is State.RUNNING:
                    effects = self._end(now)
        return effects + self._go_on(now)

    def _go_on(self, now: Now) -> list[Effect]:
        """What is due in this state."""
        now_s = now.monotonic_s
        match self.state:
            case State.GATHERING:
                return self._gather(now_s)
            case State.RUNNING | State.DRAINING:
                return self._watch(now)
            case State.HALTING if self._due_s is not None and now_s >= self._due_s:
                return self._restart("tries again", now)
        question = self._question
        if question is None:
            return []
        if not question.waiting or now_s >= question.due_s:
            return self._close(question, now)
        return [self._publish(name, command) for name, command in question.ask(now_s)]

    # ------------------------------------------------------------------- messages

    def _publish(self, to: str, command: TrainCommand) -> Publish:
        return Publish(Topic(self.site, Kind.TRAIN_COMMAND, to), command)

    def _command(self, action: Action, assignment: TrainAssignment | None = None) -> TrainCommand:
        number = self._drain_to if action == "drain" else self._number
        return TrainCommand(self.member.node, self.run, self.term, action, number, assignment)

    def _open(self, commands: Mapping[str, TrainCommand], now: Now, due_in_s: float) -> None:
        now_s = now.monotonic_s
        self._question = Question(commands, now_s, now_s + due_in_s, self.settings.retry_s)
        self._due_s = None

    def _ask_all(self, action: Action, names: Iterable[str], now: Now, due_in_s: float) -> None:
        self._number += 1
        self._open({name: self._command(action) for name in names}, now, due_in_s)

    def _take_offer(self, name: str, offer: TrainOffer, now: Now) -> list[Effect]:
        restarted = self.roster.take_offer(name, offer)
        self._note_change(now)
        return self._lose([name], "has started anew", now) if restarted else []

    def _note_change(self, now: Now) -> None:
        self._is_changed = True
        if self.state is State.GATHERING:
            self._due_s = now.monotonic_s + self.settings.gather_s

    def _take_reply(self, reply: TrainReply, now: Now) -> list[Effect]:
        if reply.term > self.term:  # of a central node before this one
            self.term = reply.term
            return self._restart("a later term is known", now) if self.arranging else []
        if reply.term < self.term and reply.answers != "halt":
            return []
        self.roster.note_alive(reply.sender)
        question = self._question
        if question is not None and question.take(reply):
            if not reply.ok and reply.answers in ("hold", "start"):
                return self._note_failure(reply.sender, reply.error, now)
        elif not reply.ok and reply.answers == "start" and self.state in _WORKING:
            return self._note_failure(reply.sender, reply.error, now)
        return []

    @property
    def arranging(self) -> bool:
        return self.state is State.HALTING or self.state in _WORKING

    def _note_failure(self, name: str, error: str, now: Now) -> list[Effect]:
        """A node fails at its work: once more, then without it."""
        self._failed[name] += 1
        if self._failed[name] >= ATTEMPTS:
            if name == self.member.node:
                return self._fail(error)
            self.roster.refuse(name)
        return self._restart(f"{name} failed: {error}", now)

    def _take_report(self, report: TrainReport) -> None:
        self.progress.take_results(report)
        held = self.arrangement and self.arrangement.range_of(report.sender)
        if held:
            times_s = [profile.forward_s + profile.backward_s for profile in self._profiles]
            self.roster.take_report(report, *held, times_s)

    # ------------------------------------------------------------------ beginning

    def _gather(self, now_s: float) -> list[Effect]:
        """Wait until no further node has come for a while, then measure the layers here."""
        if self._due_s is None:
            self._due_s = now_s + self.settings.gather_s
        if now_s < self._due_s:
            return []
        if len(self.roster.list_usable()) <= self.settings.least_workers:
            self._due_s = now_s + self.settings.gather_s
            return []
        self.move(Signal.GATHERED)
        self._due_s = None
        return [Call(ProfileJob(self.run), self._profile)]

    def _take_profile(self, returned: Returned, now: Now) -> list[Effect]:
        if self.state is not State.PROFILING:
            return []
        if returned.error:
            return self._fail(returned.error)
        self._profiles = list(returned.value)
        self.move(Signal.PROFILED)
        self._started_s = now.monotonic_s
        return self._halt(now)

    # ----------------------------------------------------------------- arrangement

    def _lose(self, names: Iterable[str], how: str, now: Now) -> list[Effect]:
        """Nodes are gone: arrange the others anew if they were in use."""
        lost = set(names)
        if self.state is State.HALTING and self._question is not None:
            self._question.drop(lost)
        used = set(self.arrangement.nodes) if self.arrangement is not None else set()
        if self.state not in _WORKING or not lost & used:
            return []
        self.failures += len(lost & used)
        return self._restart(f"{', '.join(sorted(lost & used))} {how}", now)

    def _restart(self, reason: str, now: Now) -> list[Effect]:
        self.move(Signal.RESTART)
        self.progress.note(now.wall_s, "restart", reason)
        return [Log("warning", "training: %s", (reason,)), *self._halt(now)]

    def _halt(self, now: Now) -> list[Effect]:
        """Begin a new term: everyone stops and reports what it holds."""
        self.term += 1
        self.collector.stop()
        longest_s = max((p.forward_s + p.backward_s for p in self._profiles), default=0.0) * len(
            self._profiles
        )
        self._ask_all(
            "halt", self.roster.list_usable(), now, self.settings.answer_s + 2 * longest_s
        )
        return []

    def _close(self, question: Question, now: Now) -> list[Effect]:
        """A question is answered, or its time is over."""
        silent = question.waiting
        if self.member.node in silent:  # an operation of its own takes long: it does end
            question.due_s = now.monotonic_s + self.settings.answer_s
            return []
        self._question = None
        self.roster.note_silent(silent)
        if self.state is State.HALTING:
            return self._plan(question, now)
        if silent:
            self.failures += len(silent)
            return self._restart(f"{', '.join(sorted(silent))} did not answer", now)
        match self.state:
            case State.HOLDING:
                self.move(Signal.HELD)
                self._ask_all("start", question.replies, now, self.settings.answer_s)
            case State.STARTING:
                return self._run(now)
            case State.PROBING:
                return self._judge(question, now)
        return []

    def _plan(self, question: Question, now: Now) -> list[Effect]:
        """Who holds what is known: choose the layout and where each layer comes from."""
        inventories = {
            name: [Copy(n, Stamp(term, version), Origin(o)) for n, term, version, o in reply.copies]
            for name, reply in question.replies.items()
        }
        names = [name for name in self.roster.list_usable(leaving=False) if name in inventories]
        own = inventories[self.member.node]
        version = max((copy.stamp for copy in own), default=Stamp(0, 0)).version
        try:
            self.arrangement = arrange(
                self.roster,
                names,
                self._profiles,
                self.settings,
                inventories,
                version,
                self._failure_rate(len(names), now.monotonic_s),
            )
        except InfeasiblePlanError as error:
            self._due_s = now.monotonic_s + self.settings.answer_s
            return [Log("warning", "training waits for more nodes: %s", (error,))]
        self.move(Signal.PLANNED)
        arrangement = self.arrangement
        text = ", ".join(
            f"{name} [{start}, {stop})"
            for name, (start, stop) in zip(arrangement.nodes, arrangement.ranges, strict=True)
        )
        self.progress.note(now.wall_s, "layout", text)
        self._number += 1
        commands = {
            name: self._command("hold", make_assignment(arrangement, name, self.settings))
            for name in arrangement.nodes
        }
        self._open(commands, now, self.settings.hold_s)
        return [
            Log(
                "info",
                "training: term %d from step %d: %s",
                (self.term, arrangement.restoration.version, text),
            )
        ]

    def _failure_rate(self, nodes: int, now_s: float) -> float:
        """Failures of a node per second: those counted, with one failure assumed beforehand."""
        elapsed_s = now_s - self._started_s if self._started_s is not None else 0.0
        return (1 + self.failures) / (1 / FAILURES_PER_S + elapsed_s * max(nodes, 1))

    def _run(self, now: Now) -> list[Effect]:
        self.move(Signal.STARTED)
        arrangement, runner = self.arrangement, self.runner
        if arrangement is None or runner is None:
            return []
        self.progress.begin(runner.backwards, now.monotonic_s)
        self._check_at = runner.backwards + self.settings.repartition_at[0]
        self._is_changed = False
        spare = [n for n in self.roster.list_usable() if n not in arrangement.nodes]
        return [self._publish(name, self._command("release")) for name in spare]

    # --------------------------------------------------------------------- running

    def _watch(self, now: Now) -> list[Effect]:
        runner, arrangement, now_s = self.runner, self.arrangement, now.monotonic_s
        if runner is None or arrangement is None:
            return []
        if self.progress.update(runner, now_s):
            self._failed.clear()
        effects: list[Effect] = list(self.collector.update(runner, arrangement))
        if self.state is State.DRAINING:
            return effects + self._drain(runner, now)
        if now_s >= self.progress.due_s(len(arrangement.nodes)):
            return effects + self._suspect(now)
        if runner.backwards < self.settings.batches:
            effects += self._compare(runner, arrangement, now)
        return effects

    def _suspect(self, now: Now) -> list[Effect]:
        arrangement = self.arrangement
        if arrangement is None or not self.progress.strike(now.monotonic_s):
            return self._restart("no batch ends, though all nodes answer", now)
        self.move(Signal.SUSPECT)
        self._ask_all("probe", arrangement.nodes, now, self.settings.answer_s)
        return []

    def _judge(self, question: Question, now: Now) -> list[Effect]:
        """All nodes answered a probe."""
        idle = sorted(name for name, reply in question.replies.items() if not reply.ok)
        if idle:
            return self._restart(f"{', '.join(idle)} lost the stage", now)
        self.move(Signal.ANSWERED)
        self.progress.note(now.wall_s, "resend", "a batch is overdue, and all nodes answer")
        return [self._publish(name, self._command("resend")) for name in question.commands]

    def _compare(self, runner: StageRunner, arrangement: Arrangement, now: Now) -> list[Effect]:
        """Compare the layout with the best one, at times and when nodes come or leave."""
        every = self.settings.repartition_at[1]
        is_due = bool(every) and runner.backwards >= self._check_at
        if not is_due and not self._is_changed:
            return []
        if is_due:
            self._check_at = runner.backwards + every
        self._is_changed = False
        names = self.roster.list_usable(leaving=False)
        leaving = set(arrangement.nodes) - set(names)
        if not leaving and (self.settings.equal_capacities or not every):
            return []
        try:
            nodes, layout = plan_layout(self.roster, names, self._profiles, self.settings)
        except InfeasiblePlanError:
            return []  # a node that wants to leave has to stay
        if not leaving:
            devices = self.roster.describe(arrangement.nodes, self._profiles, False)
            current_s = devices.measure_s(range(len(arrangement.nodes)), arrangement.ranges)
            moved = count_moved_bytes(arrangement, nodes, layout.ranges, self._profiles)
            move_s = moved / min(devices.rates_bytes_per_s)
            if not is_worth_moving(current_s, layout.bottleneck_s, move_s):
                return []
        size = self.settings.round_batches
        self._drain_to = runner.round_end if size else min(runner.forwards + 1, runner.end)
        if self._drain_to >= self.settings.batches:
            return []
        self.move(Signal.DRAIN)
        self._due_s = now.monotonic_s
        reason = f"{', '.join(sorted(leaving))} leaves" if leaving else "a faster layout"
        self.progress.note(now.wall_s, "drain", reason)
        return self._drain(runner, now)

    def _drain(self, runner: StageRunner, now: Now) -> list[Effect]:
        """Let no further batch in; arrange the nodes anew once none is in flight."""
        arrangement, now_s = self.arrangement, now.monotonic_s
        if arrangement is None or (runner.is_idle and runner.backwards >= self._drain_to):
            return self._restart("drained", now)
        if now_s >= self.progress.due_s(len(arrangement.nodes)):
            return self._restart("a batch is overdue while the pipeline is drained", now)
        if self._due_s is None or now_s < self._due_s:
            return []
        self._due_s = now_s + self.settings.retry_s
        return [self._publish(name, self._command("drain")) for name in arrangement.nodes]

    def _end(self, now: Now) -> list[Effect]:
        self.move(Signal.END)
        self._due_s = None
        self.progress.note(now.wall_s, "end", "training is complete")
        names = self.roster.list_usable()
        return [self._publish(name, self._command("release")) for name in names]

    def _fail(self, error: str) -> list[Effect]:
        self.move(Signal.FAIL)
        self.error, self._question, self._due_s = error, None, None
        names = self.roster.list_usable()
        return [
            Log("error", "training failed: %s", (error,)),
            *(self._publish(name, self._command("release")) for name in names),
        ]
